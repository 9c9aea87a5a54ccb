from minim1.cli import main

raise SystemExit(main())
