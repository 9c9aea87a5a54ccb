"""The figures of chapter 05: which program touches which numbers. Each returns a plotly figure, for `show`."""

from collections.abc import Sequence

from minim1.course.look import COLOURS

NUMBER, TOUCHED, MASKED = 0.0, 1.0, 2.0  # what a drawn square is; others are not drawn
SIGNS = {NUMBER: "", TOUCHED: "●", MASKED: "×"}  # so that it can be read without colours
LIGHT = "#E9E9E9"


def product_tiles(rows: int, inner: int, columns: int, block: int, program: tuple[int, int]):
    """a (rows, inner) @ b (inner, columns): the tiles of one program of (block, block), and where they stick out."""
    below, right = program[0] * block, program[1] * block
    whole = range(-(-inner // block) * block)
    return _panels(
        ["a", "b", "out"],
        [_squares(rows, inner, range(below, below + block), whole),
         _squares(inner, columns, whole, range(right, right + block)),
         _squares(rows, columns, range(below, below + block), range(right, right + block))],
        height=330,
    )


def head_tiles(heads: int, length: int, block: int, dims: Sequence[int], head: int, number: int):
    """Block `number` of one head in q, k, v and out, each (heads, length, dim), drawn as the rows of memory that it is.

    dims: D and D_v. Rows that stick out of the head are masked: they belong to the next one, or to nobody.
    """
    first = head * length + number * block
    real = min(block, length - number * block)
    squares = []
    for dim in (dims[0], dims[0], dims[1], dims[1]):
        drawn = _squares(heads * length, dim, range(first, first + block), range(dim))
        for row in range(first + real, first + block):
            drawn[row] = [MASKED] * dim
        squares.append(drawn)
    offset = f"({head} · {length} + {number * block}) · D"
    fig = _panels(["q", "k", "v", "out"], squares, height=620, rows=heads * length + -length % block)
    for edge in range(1, heads + 1):
        fig.add_hline(y=edge * length - 0.5, line=dict(color=COLOURS["text"], width=2))
    title = (f"head {head}, block {number}: tokens {number * block} to {number * block + real - 1}; "
             f"first offset {offset} = {first * dims[0]}; {block - real} of {block} rows masked")
    fig.update_yaxes(title="row of memory: head · T + token", row=1, col=1)
    return fig.update_layout(title=dict(text=title, font=dict(size=14)))


def _squares(rows: int, columns: int, lit_rows: range, lit_columns: range) -> list[list[float | None]]:
    """What each place of a matrix is, as far as the tile reaches."""
    height, width = max(rows, lit_rows.stop), max(columns, lit_columns.stop)

    def kind(r: int, c: int) -> float | None:
        inside, lit = r < rows and c < columns, r in lit_rows and c in lit_columns
        return (TOUCHED if inside else MASKED) if lit else (NUMBER if inside else None)

    return [[kind(r, c) for c in range(width)] for r in range(height)]


def _panels(names: Sequence[str], squares: Sequence[list], height: int, rows: int | None = None):
    """Matrices side by side, a square for each number: ● touched, × masked."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    widths = [len(matrix[0]) for matrix in squares]
    fig = make_subplots(rows=1, cols=len(names), subplot_titles=list(names), column_widths=widths,
                        horizontal_spacing=0.06)
    colours = [LIGHT, COLOURS["thinking"], COLOURS["highlight"]]
    scale = [[0, colours[0]], [1 / 3, colours[0]], [1 / 3, colours[1]], [2 / 3, colours[1]], [2 / 3, colours[2]],
             [1, colours[2]]]
    for column, matrix in enumerate(squares, 1):
        fig.add_trace(go.Heatmap(
            z=matrix, text=[[SIGNS.get(x, "") for x in row] for row in matrix], texttemplate="%{text}", zmin=0, zmax=2,
            colorscale=scale, showscale=False, xgap=1.5, ygap=1.5, textfont=dict(size=11, color=COLOURS["text"]),
            hovertemplate="row %{y}, column %{x}<extra></extra>",
        ), row=1, col=column)
    tall = rows or max(map(len, squares))
    fig.update_yaxes(range=[tall - 0.5, -0.5], showgrid=False, showline=False, dtick=2)
    fig.update_xaxes(showgrid=False, showline=False, dtick=2)
    return fig.update_layout(height=height)
