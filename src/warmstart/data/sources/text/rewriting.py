"""Made sentences whose numbers and dates are to be rewritten, with words of the plays included in the package."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd

from warmstart.data.sources.text.shakespeare import read_plays, words_of

ROWS, FEWEST, MOST = 4_000, 2, 4  # rows; fewest and most words around a number or a date
VOCABULARY = 300  # most frequent words to choose from
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
FIRST, DAYS = datetime.date(1590, 1, 1), 10_000  # first date, and number of dates


def make_rewriting(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return different sentences (column `text`), and the same with the number in words or the date by year (`target`).

    Each sentence has a number from 0 to 999 or a date such as 7 March 1601, which becomes 1601-03-07.
    """
    generator = np.random.default_rng(seed)
    vocabulary = words_of(read_plays(), VOCABULARY)
    found: dict[str, str] = {}
    while len(found) < rows:
        count = int(generator.integers(FEWEST, MOST + 1))
        words = [vocabulary[number] for number in generator.choice(len(vocabulary), count, replace=False)]
        place = int(generator.integers(0, count + 1))
        if generator.random() < 0.5:
            number = int(generator.integers(1000))
            before, after = str(number), in_words(number)
        else:
            date = FIRST + datetime.timedelta(days=int(generator.integers(DAYS)))
            before, after = f"{date.day} {MONTHS[date.month - 1]} {date.year}", date.isoformat()
        text, target = (" ".join([*words[:place], cell, *words[place:]]) for cell in (before, after))
        found[text] = target
    return pd.DataFrame({"text": list(found), "target": list(found.values())}, dtype=object)


def in_words(number: int) -> str:
    """Return a number from 0 to 999 in English words."""
    if number < len(ONES):
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    hundreds, rest = divmod(number, 100)
    return f"{ONES[hundreds]} hundred" + (f" {in_words(rest)}" if rest else "")
