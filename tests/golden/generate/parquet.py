"""A Parquet file as pyarrow writes it: a list of structs, text, numbers, nulls, two row groups.

pyarrow 26.0.1; run from the root of the repository:
    python tests/golden/generate/parquet.py
"""

import pathlib

import pyarrow
import pyarrow.parquet

FOLDER = pathlib.Path("tests/golden/parquet")


def conversation(number):
    return [
        {"role": "user", "content": f"What is {number} + 1?"},
        {"role": "assistant", "content": f"It is {number + 1}. Grüße, 你好"},
    ]


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [
        {"messages": conversation(it), "id": it, "score": it / 4, "note": None if it % 2 else f"note {it}"}
        for it in range(5)
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, FOLDER / "conversations.parquet", compression="zstd", row_group_size=3)
    pairs = [{"prompt": f"What is {it} + 1?", "completion": f" It is {it + 1}."} for it in range(6)]
    table = pyarrow.Table.from_pylist(pairs)
    pyarrow.parquet.write_table(table, FOLDER / "pairs.parquet", compression="snappy")


main()
