"""A hundred and twenty everyday tasks, twenty of them not in English. Every third one is held out: scored once, never tuned on.

One entry for each task, and nothing else: that is why this file is long.

Kinds: no call is due; one call; several at once; one after the other; an error to recover from; a second message.
"""

from __future__ import annotations

import re
from typing import Any

from .judge import Task, Want, Worth

HELD_OUT_EVERY = 3
FEW, MANY = (
    "calculate weather stock",
    "calculate weather stock price send_mail convert_units sort_numbers age contact local_time",
)
ANY = re.compile(r"\S")
TASKS: list[Task] = []


def want(tool: str, /, **arguments: Any) -> Want:
    return Want(tool, arguments)


def may(tool: str, /, **arguments: Any) -> Want:
    """A call that helps and is not needed."""
    return Want(tool, arguments, must=False)


def sums(value: float) -> Want:
    return want("calculate", expression=Worth(value))


def helps(value: float) -> Want:
    return may("calculate", expression=Worth(value))


def task(name: str, asks: str | tuple[str, ...], tools: str, *wants: Want, answer: str | tuple[str, ...] = ()) -> None:
    several, patterns = (asks,) if isinstance(asks, str) else asks, (answer,) if isinstance(answer, str) else answer
    TASKS.append(Task(name, several, tuple(tools.split()), wants, patterns))


def _weather(city: str, **more: Any) -> Want:
    return want("weather", city=re.compile(rf"^{city}\b", re.I), unit=["celsius", ""], **more)


# No call is due: the tools do not fit, or there is nothing to look up.
task("hello", "Hello!", FEW)
task("thanks", "Thank you, that was helpful.", FEW)
task("say-hello", "Say hello to the class.", "calculate", answer="hello|hi\\b")
task("joke", "Tell me a short joke.", MANY)
task("capital", "What is the capital of Italy?", "calculate send_mail", answer="rome")
task("author", "Who wrote Romeo and Juliet?", "price stock send_mail", answer="shakespeare")
task("list-comprehension", "What is a list comprehension in Python?", FEW, answer="list")
task("reverse", "Write a Python function that reverses a string.", "calculate sort_numbers", answer="def ")
task("translate", "Translate 'good morning' into French.", "weather send_mail add_event", answer="bonjour")
task("rainbow", "Name the colours of the rainbow.", MANY, answer=("red", "blue"))
task("water", "At what temperature does water boil at sea level, in Celsius?", "send_mail price", answer="100")
task("opposite", "What is the opposite of 'cold'?", "weather calculate", answer="hot|warm")
task("haiku", "Write a haiku about autumn.", FEW)
task(
    "explain-loop",
    "Explain what a for loop does, in one sentence.",
    "calculate sort_numbers to_hexadecimal",
    answer="loop|iterat|repeat",
)
task("what-can", "What can you help me with?", "weather calculate")
task("planet", "Which planet is closest to the sun?", "distance calculate weather", answer="mercury")
task("plural", "What is the plural of 'mouse'?", "count_letter stock", answer="mice")
task("advice", "Give me one tip for sleeping better.", "set_light add_event")
task("missing-tool", "Play some jazz, please.", "weather calculate send_mail")
task("missing-data", "How many people live in Atlantis? If you cannot know, say so.", "weather price")
task("summary", "Summarise in five words: The cat sat on the mat and slept.", FEW, answer="cat")
task("sql", "Write an SQL query that selects all rows of the table users.", "read_note list_notes", answer="select")
task("bye", "Goodbye!", MANY)
task("rhyme", "Give me a word that rhymes with 'light'.", "set_light weather", answer="\\w")

# One call.
task("product", "What is 17 times 23?", "calculate", sums(391), answer="391")
task("power", "Compute 2 to the power of 16.", "calculate weather", sums(65536), answer="65536")
task("root", "What is the square root of 1764?", FEW, sums(42), answer="42")
task("percent", "How much is 15 percent of 240?", "calculate price", sums(36), answer="36")
task("weather-oslo", "What is the weather in Oslo?", "weather", _weather("Oslo"), answer="3")
task("weather-rome", "How warm is it in Rome right now?", FEW, _weather("Rome"), answer="22")
task("weather-cairo", "Is it hot in Cairo today? Tell me the temperature.", MANY, _weather("Cairo"), answer="31")
task(
    "weather-fahrenheit",
    "What is the temperature in Madrid in Fahrenheit?",
    "weather calculate",
    want("weather", city=re.compile("^madrid", re.I), unit="fahrenheit"),
    answer="75",
)
task(
    "stock-lamp", "How many lamps do we have in stock?", "stock price", want("stock", item=["lamp", "lamps"]), answer="3|three"
)
task("stock-cup", "Are there any cups left? How many?", FEW, want("stock", item=["cup", "cups"]), answer="18")
task(
    "stock-none", "Do we still have tables in stock?", MANY, want("stock", item=["table", "tables"]), answer="0|no\\b|none|not"
)
task("price-desk", "What does a desk cost?", "price", want("price", item=["desk", "desks"]), answer="210")
task("price-cup", "How much is one cup?", "price stock weather", want("price", item=["cup", "cups"]), answer="6")
task("price-notebook", "Tell me the price of a notebook.", MANY, want("price", item="notebook"), answer="3[.,]8")
task(
    "mail-subject",
    "Send a mail to eve@example.org with the subject 'Dinner'.",
    "send_mail",
    want("send_mail", to="eve@example.org", subject="Dinner", body=[ANY, ""]),
)
task(
    "mail-body",
    "Write an e-mail to frank@example.org, subject 'Meeting', saying that I will be late.",
    "send_mail calculate weather",
    want("send_mail", to="frank@example.org", subject="Meeting", body=re.compile("late", re.I)),
)
task(
    "metres",
    "How many metres are 3 miles?",
    "convert_units",
    want("convert_units", value=3, from_unit="mile", to_unit="m"),
    answer="4828",
)
task(
    "pounds",
    "Convert 10 kg to pounds.",
    MANY,
    want("convert_units", value=10, from_unit="kg", to_unit="pound"),
    answer="22[.,]0",
)
task(
    "inches",
    "How many cm are 12 inches?",
    "convert_units calculate",
    want("convert_units", value=12, from_unit="inch", to_unit="cm"),
    answer="30[.,]4",
)
task(
    "sort-up",
    "Sort these numbers: 9, 2, 7, 4.",
    "sort_numbers",
    want("sort_numbers", numbers=frozenset({9, 2, 7, 4}), descending=[False, ""]),
    answer="2\\D+4\\D+7\\D+9",
)
task(
    "sort-down",
    "Sort 3, 8, 1 and 6, the largest first.",
    MANY,
    want("sort_numbers", numbers=frozenset({3, 8, 1, 6}), descending=True),
    answer="8\\D+6\\D+3\\D+1",
)
task("age-grace", "How old is Grace?", "age", want("age", name="Grace"), answer="85")
task("age-tim", "What is Tim's age?", "age contact weather", want("age", name="Tim"), answer="69")
task("people-japan", "How many people live in Japan?", "population weather", want("population", country="Japan"), answer="124")
task("time-tokyo", "What time is it in Tokyo?", "local_time", want("local_time", city="Tokyo"), answer="21:15|9:15")
task("time-sydney", "Tell me the local time in Sydney.", MANY, want("local_time", city="Sydney"), answer="23:15|11:15")
task(
    "contact-carla",
    "What is Carla's e-mail address?",
    "contact send_mail",
    want("contact", name="Carla"),
    answer="carla@example\\.org",
)
task(
    "rate",
    "How many US dollars is one euro?",
    "exchange_rate calculate",
    want("exchange_rate", base="EUR", target="USD"),
    answer="1[.,]1",
)
task(
    "road",
    "How far is it from Berlin to Munich by road?",
    "distance weather",
    want("distance", start="Berlin", goal="Munich"),
    answer="585",
)
task("notes", "Which notes do I have?", "list_notes read_note", want("list_notes"), answer=("shopping", "ideas", "todo"))
task("hex", "Write 255 in hexadecimal.", "to_hexadecimal calculate", want("to_hexadecimal", number=255), answer="ff")
task(
    "letters",
    "How many times does the letter s occur in 'Mississippi'?",
    "count_letter",
    want("count_letter", word="mississippi", letter="s"),
    answer="4|four",
)

# Several calls that do not wait for each other.
task(
    "two-stocks",
    "How many apples and bananas are in stock?",
    "stock",
    want("stock", item=["apple", "apples"]),
    want("stock", item=["banana", "bananas"]),
    answer=("12", "7|seven"),
)
task(
    "two-weathers",
    "What is the weather in London and Oslo?",
    "weather",
    _weather("London"),
    _weather("Oslo"),
    answer=("14", "3"),
)
task("warmer", "Which is warmer, Paris or Cairo?", FEW, _weather("Paris"), _weather("Cairo"), answer="cairo")
task("older", "Who is older, Ada or Linus?", "age", want("age", name="Ada"), want("age", name="Linus"), answer="linus")
task(
    "two-prices",
    "What do a chair and a desk cost?",
    "price stock",
    want("price", item=["chair", "chairs"]),
    want("price", item=["desk", "desks"]),
    answer=("49[.,]5", "210"),
)
task(
    "two-times",
    "What time is it in London and in Sydney?",
    MANY,
    want("local_time", city="London"),
    want("local_time", city="Sydney"),
    answer=("12:15", "23:15|11:15"),
)
task(
    "three-weathers",
    "Tell me the temperature in Rome, Berlin and Lima.",
    "weather calculate",
    _weather("Rome"),
    _weather("Berlin"),
    _weather("Lima"),
    answer=("22", "11", "20"),
)
task("two-sums", "Compute 12 * 12 and 13 * 13.", "calculate", sums(144), sums(169), answer=("144", "169"))
task(
    "two-mails",
    "Send a mail with the subject 'Hi' to ann@example.org and to bob@example.org.",
    "send_mail",
    want("send_mail", to="ann@example.org", subject="Hi", body=[ANY, ""]),
    want("send_mail", to="bob@example.org", subject="Hi", body=[ANY, ""]),
)
task(
    "weather-and-sum",
    "What is the weather in Tokyo, and what is 25 * 4?",
    FEW,
    _weather("Tokyo"),
    sums(100),
    answer=("17", "100"),
)
task(
    "price-and-stock",
    "What does a pen cost, and how many pens are in stock?",
    "price stock calculate",
    want("price", item=["pen", "pens"]),
    want("stock", item=["pen", "pens"]),
    answer=("1[.,]2", "250"),
)
task(
    "two-people",
    "Are there more people in Spain or in Italy?",
    "population",
    want("population", country="Spain"),
    want("population", country="Italy"),
    answer="italy",
)
task(
    "lights",
    "Switch on the light in the kitchen and in the hall.",
    "set_light weather",
    want("set_light", room=re.compile("kitchen", re.I), on=True),
    want("set_light", room=re.compile("hall", re.I), on=True),
)
task(
    "two-letters",
    "Count the letter e in 'letter' and in 'sleeper'.",
    "count_letter",
    want("count_letter", word="letter", letter="e"),
    want("count_letter", word="sleeper", letter="e"),
    answer=("2|two", "3|three"),
)
task(
    "two-hex",
    "What are 10 and 200 in hexadecimal?",
    "to_hexadecimal",
    want("to_hexadecimal", number=10),
    want("to_hexadecimal", number=200),
    answer=("0x0*a|\\ba\\b", "c8"),
)
task(
    "two-contacts",
    "Give me the mail addresses of Bob and Dan.",
    MANY,
    want("contact", name="Bob"),
    want("contact", name="Dan"),
    answer=("bob@", "dan@"),
)
task(
    "two-units",
    "Convert 5 km to miles and 2 kg to pounds.",
    "convert_units",
    want("convert_units", value=5, from_unit="km", to_unit="mile"),
    want("convert_units", value=2, from_unit="kg", to_unit="pound"),
    answer=("3[.,]1", "4[.,]4"),
)
task(
    "colder", "Is Dublin colder than Athens?", "weather local_time", _weather("Dublin"), _weather("Athens"), answer="yes|dublin"
)

# One call after the other.
task(
    "total",
    "What do 3 lamps cost in total?",
    "price calculate",
    want("price", item=["lamp", "lamps"]),
    helps(105),
    answer="105",
)
task(
    "stock-value",
    "We sell all our chairs. How much money is that, at the price of each?",
    "price stock calculate",
    want("price", item=["chair", "chairs"]),
    want("stock", item=["chair", "chairs"]),
    helps(1980),
    answer="1980",
)
task(
    "mail-ann",
    "Send Ann a mail with the subject 'Party'. Look up her address first.",
    "contact send_mail",
    want("contact", name="Ann"),
    want("send_mail", to="ann@example.org", subject="Party", body=[ANY, ""]),
)
task(
    "sum-hex",
    "Add 100 and 155, then write the result in hexadecimal.",
    "calculate to_hexadecimal",
    sums(255),
    want("to_hexadecimal", number=255),
    answer="ff",
)
task(
    "age-sum",
    "How old are Alan and Mary together?",
    "age calculate",
    want("age", name="Alan"),
    want("age", name="Mary"),
    helps(70),
    answer="70",
)
task(
    "read-todo",
    "What stands in my to-do note?",
    "list_notes read_note",
    may("list_notes"),
    want("read_note", name="todo.txt"),
    answer="rent|call",
)
task(
    "weather-difference",
    "By how many degrees is Athens warmer than Zurich?",
    "weather calculate",
    _weather("Athens"),
    _weather("Zurich"),
    helps(19),
    answer="19",
)
task(
    "dollars",
    "A desk costs how many US dollars? Take the price in euros and the exchange rate.",
    "price exchange_rate calculate",
    want("price", item="desk"),
    want("exchange_rate", base="EUR", target="USD"),
    helps(231),
    answer="231",
)
task(
    "road-miles",
    "How many miles is it from Paris to Lyon?",
    "distance convert_units calculate",
    want("distance", start="Paris", goal="Lyon"),
    want("convert_units", value=465, from_unit="km", to_unit="mile"),
    answer="28[89]",
)
task(
    "sorted-ages",
    "Sort the ages of Ada, Grace and Mary, the youngest first.",
    "age sort_numbers",
    want("age", name="Ada"),
    want("age", name="Grace"),
    want("age", name="Mary"),
    may("sort_numbers", numbers=frozenset({36, 85, 29}), descending=[False, ""]),
    answer="29[\\s\\S]*36[\\s\\S]*85",
)
task(
    "shopping",
    "Find my shopping list among the notes and tell me what is on it.",
    "list_notes read_note calculate",
    may("list_notes"),
    want("read_note", name="shopping.txt"),
    answer=("milk", "bread"),
)
task(
    "mail-weather",
    "Mail the current weather in Vienna to dan@example.org, subject 'Weather'.",
    "weather send_mail",
    _weather("Vienna"),
    want("send_mail", to="dan@example.org", subject="Weather", body=re.compile("13")),
)

# An error to recover from.
task(
    "bad-date",
    "Put 'Dentist' into my calendar for March 5th 2027.",
    "add_event",
    may("add_event", title="Dentist", date=ANY, time=[ANY, ""]),
    want("add_event", title="Dentist", date="2027-03-05", time=""),
)
task(
    "no-address",
    "Send Bob a mail with the subject 'Lunch'.",
    "send_mail contact",
    want("contact", name="Bob"),
    want("send_mail", to="bob@example.org", subject="Lunch", body=[ANY, ""]),
)
task(
    "no-note",
    "Read my note called shopping.",
    "read_note list_notes",
    may("list_notes"),
    want("read_note", name="shopping.txt"),
    answer="milk",
)
task("no-item", "How many sofas are in stock?", "stock", answer="no\\b|not|0|cannot|unable|sorry|error")
task("no-city", "What is the weather in Atlantis?", FEW, answer="no\\b|not|cannot|unable|sorry|error|fictional")
task("no-person", "How old is Zoe?", "age contact", answer="no\\b|not|nobody|cannot|unable|sorry|error|don't")

# A second message.
task("and-rome", ("What is the weather in Oslo?", "And in Rome?"), "weather", _weather("Oslo"), _weather("Rome"), answer="22")
task("and-thanks", ("What is 6 times 7?", "Thank you!"), "calculate", sums(42))
task(
    "then-double",
    ("How many lamps are in stock?", "And how many chairs?"),
    "stock price",
    want("stock", item=["lamp", "lamps"]),
    want("stock", item=["chair", "chairs"]),
    answer="40",
)
task(
    "then-mail",
    ("What is Ann's e-mail address?", "Send her a mail with the subject 'Hello'."),
    "contact send_mail",
    want("contact", name="Ann"),
    may("contact", name="Ann"),
    want("send_mail", to="ann@example.org", subject="Hello", body=[ANY, ""]),
)
task(
    "then-why",
    ("What does a table cost?", "Write a one-line advertisement for it."),
    "price stock",
    want("price", item=["table", "tables"]),
    may("price", item=["table", "tables"]),
    answer="table",
)
task("hello-then", ("Hello!", "What is 99 + 1?"), FEW, sums(100), answer="100")
task(
    "repeat-known",
    ("What time is it in Berlin?", "What did you just tell me?"),
    "local_time",
    want("local_time", city="Berlin"),
    may("local_time", city="Berlin"),
    answer="13:15|1:15",
)
task(
    "then-fahrenheit",
    ("How warm is it in Berlin?", "And in Fahrenheit?"),
    "weather calculate",
    _weather("Berlin"),
    may("weather", city=re.compile("^berlin", re.I), unit="fahrenheit"),
    helps(51.8),
    helps(52),
    answer="5[12]",
)

# In German, French, Spanish and Chinese.
task("de-hallo", "Hallo, wie geht es dir?", FEW)
task("de-weather", "Wie ist das Wetter in Berlin?", "weather", _weather("Berlin"), answer="11")
task("de-sum", "Wie viel ist 48 mal 25?", MANY, sums(1200), answer="1200")
task(
    "de-two",
    "Wie warm ist es in Zürich und in Rom?",
    "weather calculate",
    _weather("(Zürich|Zurich)"),
    _weather("(Rom|Rome)"),
    answer=("8", "22"),
)
task(
    "de-mail",
    "Schick eine E-Mail an eva@example.org mit dem Betreff 'Treffen'.",
    "send_mail contact",
    want("send_mail", to="eva@example.org", subject="Treffen", body=[ANY, ""]),
)
task("fr-bonjour", "Bonjour ! Qui es-tu ?", "weather calculate")
task("fr-weather", "Quel temps fait-il à Lyon ?", FEW, _weather("Lyon"), answer="16")
task("fr-price", "Combien coûte une tasse (cup) ?", "price stock", want("price", item=["cup", "cups"]), answer="6")
task(
    "fr-sort",
    "Trie ces nombres : 5, 3, 8.",
    "sort_numbers calculate",
    want("sort_numbers", numbers=frozenset({5, 3, 8}), descending=[False, ""]),
    answer="3\\D+5\\D+8",
)
task(
    "fr-time",
    "Quelle heure est-il à Londres et à Tokyo ?",
    "local_time",
    want("local_time", city=["London", "Londres"]),
    want("local_time", city="Tokyo"),
    answer=("12:15|12\\s?h\\s?15", "21:15|21\\s?h\\s?15"),
)
task("es-capital", "¿Cuál es la capital de Francia?", "calculate weather stock", answer="par[ií]s")
task("es-weather", "¿Qué temperatura hace en Sevilla?", "weather", _weather("Sevill[ea]"), answer="29")
task("es-sum", "¿Cuánto es 144 dividido entre 12?", FEW, sums(12), answer="12|doce")
task("es-age", "¿Cuántos años tiene Alan?", "age contact", want("age", name="Alan"), answer="41")
task(
    "es-two",
    "¿Hace más calor en Madrid o en Londres?",
    "weather local_time",
    _weather("Madrid"),
    _weather("(London|Londres)"),
    answer="madrid",
)
task("zh-hello", "你好！", "weather calculate")
task("zh-weather", "北京的天气怎么样？", "weather", _weather("(北京|Beijing)"), answer="12")
task("zh-sum", "计算 36 乘以 25。", "calculate stock", sums(900), answer="900")
task(
    "zh-two",
    "北京和上海现在多少度？",
    "weather calculate",
    _weather("(北京|Beijing)"),
    _weather("(上海|Shanghai)"),
    answer=("12", "18"),
)
task(
    "zh-mail",
    "发一封邮件给 li@example.org，主题是“会议”。",
    "send_mail contact",
    want("send_mail", to="li@example.org", subject="会议", body=[ANY, ""]),
)

HELD_OUT = tuple(TASKS[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
TUNING = tuple(task for task in TASKS if task not in HELD_OUT)
