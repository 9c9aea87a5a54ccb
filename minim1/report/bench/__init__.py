"""`minim1 bench`: ours against its peers, interleaved in one process, after checking that all compute the same numbers.

  `harness`    how a comparison is timed, checked and stored: what every benchmark here is written against
  `attention`  lightning attention against the loop of transformers, flash-linear-attention and softmax attention
  `experts`    the expert dispatch against loops and grouped matmuls
  `models`     whole models: a training step and generation
  `rl_step`    one RL step
  `roofline`   what this machine can move and multiply, and which share of it the measured times reach
  `figure`     the picture of a stored result
  `command`    the verb: runs them, prints tables, writes bench.json
"""
