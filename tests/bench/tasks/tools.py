"""Tools that a person would write: small tables and plain functions, with the errors that such functions have."""

from __future__ import annotations

from typing import Literal

from llm_magics import tool
from llm_magics.tools.builtin.toolbox import calculate
from llm_magics.tools.define.tool import Tool

TEMPERATURES = {
    "paris": 19,
    "london": 14,
    "oslo": 3,
    "cairo": 31,
    "rome": 22,
    "berlin": 11,
    "madrid": 24,
    "tokyo": 17,
    "lima": 20,
    "zurich": 8,
    "beijing": 12,
    "lyon": 16,
    "vienna": 13,
    "athens": 27,
    "dublin": 10,
    "münchen": 6,
    "munich": 6,
    "北京": 12,
    "上海": 18,
    "shanghai": 18,
    "sevilla": 29,
    "seville": 29,
    "zürich": 8,
    "rom": 22,
    "londres": 14,
}
STOCK = {"apple": 12, "banana": 7, "lamp": 3, "chair": 40, "table": 0, "pen": 250, "notebook": 85, "cup": 18, "desk": 5}
PRICES = {"lamp": 35.0, "chair": 49.5, "table": 120.0, "pen": 1.2, "notebook": 3.8, "cup": 6.0, "desk": 210.0, "apple": 0.4}
AGES = {"ada": 36, "linus": 54, "grace": 85, "alan": 41, "mary": 29, "tim": 69}
MILLIONS = {"france": 68, "germany": 84, "norway": 5, "japan": 124, "spain": 48, "italy": 59, "canada": 40, "peru": 34}
CLOCKS = {"tokyo": "21:15", "london": "12:15", "new york": "07:15", "sydney": "23:15", "berlin": "13:15", "londres": "12:15"}
MAILS = {"ann": "ann@example.org", "bob": "bob@example.org", "carla": "carla@example.org", "dan": "dan@example.org"}
RATES = {"EUR": 1.0, "USD": 1.1, "GBP": 0.85, "CHF": 0.95, "JPY": 160.0}
KILOMETRES = {("paris", "lyon"): 465, ("berlin", "munich"): 585, ("rome", "milan"): 572, ("london", "leeds"): 314}
NOTES = {"shopping.txt": "milk, bread, six eggs", "ideas.txt": "a garden on the roof", "todo.txt": "call Ann; pay the rent"}
METRES = {"m": 1.0, "km": 1000.0, "cm": 0.01, "mile": 1609.344, "foot": 0.3048, "inch": 0.0254}
GRAMS = {"g": 1.0, "kg": 1000.0, "pound": 453.59237, "ounce": 28.349523125}


def _one(word: str) -> str:
    """A thing's name as the tables have it, e.g. "Lamps" is "lamp", "Paris, France" is "paris"."""
    plain = word.split(",")[0].strip().lower()
    return plain if plain in STOCK or not plain.endswith("s") or plain in TEMPERATURES else plain[:-1]


@tool
def weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, object]:
    """Get the current weather of a city.

    Args:
        city: name of the city, e.g. "Vienna".
        unit: unit of the temperature.
    """
    if (plain := city.split(",")[0].strip().lower()) not in TEMPERATURES:
        raise ValueError(f"There is no weather for {city!r}.")
    degrees = TEMPERATURES[plain]
    return {"city": city, "temperature": degrees if unit == "celsius" else round(degrees * 9 / 5 + 32), "unit": unit}


@tool
def stock(item: str) -> int:
    """How many pieces of an item are in stock.

    Args:
        item: the item's name in the singular, e.g. "desk".
    """
    if _one(item) not in STOCK:
        raise ValueError(f"There is no item {item!r}. There are: {', '.join(STOCK)}.")
    return STOCK[_one(item)]


@tool
def price(item: str) -> float:
    """Price of one piece of an item, in euros.

    Args:
        item: the item's name in the singular, e.g. "desk".
    """
    if _one(item) not in PRICES:
        raise ValueError(f"There is no item {item!r}. There are: {', '.join(PRICES)}.")
    return PRICES[_one(item)]


@tool
def send_mail(to: str, subject: str, body: str = "") -> str:
    """Send an e-mail.

    Args:
        to: the address.
        subject: the subject line.
        body: the text.
    """
    if "@" not in to:
        raise ValueError(f"{to!r} is not an address. Look it up with contact.")
    return f"sent to {to}"


@tool
def convert_units(value: float, from_unit: str, to_unit: str) -> float:
    """Convert a length or a weight.

    Args:
        value: how much.
        from_unit: one of m, km, cm, mile, foot, inch, g, kg, pound, ounce.
        to_unit: one of the same units.
    """
    for table in (METRES, GRAMS):
        if from_unit in table and to_unit in table:
            return round(value * table[from_unit] / table[to_unit], 3)
    raise ValueError(f"Cannot convert {from_unit!r} to {to_unit!r}. Units: {', '.join([*METRES, *GRAMS])}.")


@tool
def sort_numbers(numbers: list[float], descending: bool = False) -> list[float]:
    """Sort numbers.

    Args:
        numbers: what to sort.
        descending: the largest first.
    """
    return sorted(numbers, reverse=descending)


@tool
def age(name: str) -> int:
    """How old a colleague is, in years.

    Args:
        name: first name.
    """
    if name.strip().lower() not in AGES:
        raise ValueError(f"Nobody here is called {name!r}.")
    return AGES[name.strip().lower()]


@tool
def population(country: str) -> str:
    """Number of people in a country.

    Args:
        country: its English name.
    """
    if country.strip().lower() not in MILLIONS:
        raise ValueError(f"There is no figure for {country!r}.")
    return f"{MILLIONS[country.strip().lower()]} million"


@tool
def local_time(city: str) -> str:
    """What time it is now in a city.

    Args:
        city: name of the city.
    """
    if (plain := city.split(",")[0].strip().lower()) not in CLOCKS:
        raise ValueError(f"There is no clock for {city!r}.")
    return CLOCKS[plain]


@tool
def add_event(title: str, date: str, time: str = "") -> str:
    """Put an event into the calendar.

    Args:
        title: what it is.
        date: as YYYY-MM-DD.
        time: as HH:MM.
    """
    if len(date.split("-")) != 3:
        raise ValueError(f"{date!r} is not a date. Write it as YYYY-MM-DD.")
    return f"added {title} on {date} {time}".strip()


@tool
def contact(name: str) -> str:
    """Look up a person's e-mail address.

    Args:
        name: first name.
    """
    if name.strip().lower() not in MAILS:
        raise ValueError(f"There is no contact {name!r}.")
    return MAILS[name.strip().lower()]


@tool
def exchange_rate(base: str, target: str) -> float:
    """How much one unit of a currency is worth in another one.

    Args:
        base: three letters, e.g. "EUR".
        target: three letters, e.g. "USD".
    """
    return round(RATES[target.upper()] / RATES[base.upper()], 4)


@tool
def distance(start: str, goal: str) -> int:
    """Distance between two cities by road, in kilometres."""
    ends = (start.strip().lower(), goal.strip().lower())
    for pair in (ends, ends[::-1]):
        if pair in KILOMETRES:
            return KILOMETRES[pair]
    raise ValueError(f"There is no road from {start} to {goal} in the table.")


@tool
def list_notes() -> list[str]:
    """List the names of all notes."""
    return list(NOTES)


@tool
def read_note(name: str) -> str:
    """Read one note.

    Args:
        name: its file name, e.g. "diary.txt".
    """
    if name not in NOTES:
        raise ValueError(f"There is no note {name!r}. list_notes tells the names.")
    return NOTES[name]


@tool
def set_light(room: str, on: bool) -> str:
    """Switch the light of a room on or off."""
    return f"the light in the {room} is {'on' if on else 'off'}"


@tool
def to_hexadecimal(number: int) -> str:
    """Write a whole number in hexadecimal."""
    return hex(number)


@tool
def count_letter(word: str, letter: str) -> int:
    """Count how often a letter occurs in a word."""
    return word.lower().count(letter.lower())


@tool
def book_table(restaurant: str, people: int, time: str) -> str:
    """Book a table in a restaurant.

    Args:
        restaurant: its name.
        people: how many.
        time: as HH:MM.
    """
    return f"booked: {restaurant}, {people} people, {time}"


TOOLS: dict[str, Tool] = {
    t.name: t
    for t in (
        *(calculate, weather, stock, price, send_mail, convert_units, sort_numbers, age, population, local_time, add_event),
        *(contact, exchange_rate, distance, list_notes, read_note, set_light, to_hexadecimal, count_letter, book_table),
    )
}
