"""What does a colour mean? The same thing in every figure, of the reports and of the course.

The colours are Okabe and Ito's, which people with any common kind of colour blindness tell apart. They are never the
only difference: each meaning has its own dashes and marker too, so that a figure can be read in grey.
"""

INKS = {  # meaning -> colour, dashes, marker
    "lightning": ("#0072B2", "solid", "circle"),  # blue
    "softmax": ("#D55E00", "dash", "square"),  # vermilion
    "expert": ("#009E73", "dot", "diamond"),  # green
    "reward": ("#E69F00", "dashdot", "star"),  # orange
    "clipped": ("#CC79A7", "longdash", "x"),  # purple
    "thinking": ("#56B4E9", "longdashdot", "triangle-up"),  # sky blue
    "highlight": ("#F0E442", "solid", "circle"),  # yellow: an area behind something, never a line
    "text": ("#222222", "solid", "circle"),
    "grey": ("#767676", "dot", "circle-open"),  # what is there for comparison only
}
COLOURS = {meaning: colour for meaning, (colour, _, _) in INKS.items()}
