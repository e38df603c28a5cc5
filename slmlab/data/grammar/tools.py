"""The tools of the tool-call task: names, arguments, and the ways people ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One argument value: as a person says it, and as the JSON call states it."""

    spoken: str
    meant: str | int


@dataclass(frozen=True)
class Tool:
    """A tool: `arguments` are (name, possible values), `phrasings` are format strings over them."""

    name: str
    arguments: tuple[tuple[str, tuple[Value, ...]], ...]
    phrasings: tuple[str, ...]


def _words(text: str) -> tuple[Value, ...]:
    return tuple(Value(item.strip(), item.strip()) for item in text.split(","))


def _numbers(numbers: Iterable[int]) -> tuple[Value, ...]:
    return tuple(Value(str(number), number) for number in numbers)


def _mapped(pairs: Mapping[str, str]) -> tuple[Value, ...]:
    return tuple(Value(spoken, meant) for spoken, meant in pairs.items())


NAMES = _words(
    "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Iris, Jack, Kate, Leo, Maria, Noah, "
    "Olga, Paul, Rosa, Sam, Tina, Victor, Wendy, Yusuf, Zoe, Amir, Bella, Carlos, Diana, Erik, "
    "Fatima, George, Hannah, Ivan"
)
CITIES = _words(
    "Paris, London, Berlin, Madrid, Rome, Vienna, Oslo, Prague, Lisbon, Dublin, Athens, Warsaw, "
    "Cairo, Lagos, Nairobi, Tokyo, Seoul, Delhi, Mumbai, Bangkok, Sydney, Toronto, Boston, "
    "Chicago, Denver, Seattle, Lima, Bogota, Havana, Quito"
)
DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
TIMES = tuple(
    Value(f"{hour}:{minute:02d}", f"{hour:02d}:{minute:02d}")
    for hour in range(6, 23)
    for minute in (0, 15, 30, 45)
)
ROOMS = _words("kitchen, bedroom, bathroom, office, hall, garage, living room, attic")
GENRES = _words("jazz, rock, folk, opera, blues, pop, piano, guitar, classical, dance, soul, choir")
GOODS = _words(
    "apples, eggs, lemons, onions, carrots, candles, batteries, pencils, towels, cups, plates, "
    "bananas, potatoes, tomatoes, oranges, peppers, nails, stamps, pears, rolls"
)
PHRASES = _words(
    "good morning, thank you, see you soon, where is the station, how are you, good night, "
    "the train is late, open the window, I am hungry, happy birthday, close the door, "
    "what time is it, I need help, the soup is hot, it is raining, we are lost"
)
MESSAGES = _words(
    "I am late, dinner is ready, call me back, the bus is here, I am home, happy birthday, "
    "see you at noon, bring the keys, the meeting moved, thank you, I found your book, "
    "we need milk, the train is late, good luck, I am on my way, the door is open"
)
LANGUAGES = _mapped(
    {
        "French": "fr",
        "German": "de",
        "Spanish": "es",
        "Italian": "it",
        "Japanese": "ja",
        "Polish": "pl",
        "Turkish": "tr",
        "Dutch": "nl",
    }
)
CURRENCIES = _mapped(
    {
        "dollars": "USD",
        "euros": "EUR",
        "pounds": "GBP",
        "yen": "JPY",
        "francs": "CHF",
        "pesos": "MXN",
        "rupees": "INR",
        "won": "KRW",
    }
)

TOOLS = (
    Tool(
        "set_timer",
        (("minutes", _numbers(range(2, 100))),),
        (
            "set a timer for {minutes} minutes",
            "start a {minutes} minute timer",
            "timer for {minutes} minutes please",
            "count down {minutes} minutes",
            "tell me when {minutes} minutes are over",
        ),
    ),
    Tool(
        "set_alarm",
        (("day", DAYS), ("time", TIMES)),
        (
            "wake me at {time} on {day}",
            "set an alarm for {day} at {time}",
            "I have to get up at {time} on {day}",
            "alarm on {day}, {time}",
            "please wake me on {day} at {time}",
        ),
    ),
    Tool(
        "get_weather",
        (("city", CITIES), ("day", DAYS)),
        (
            "what is the weather in {city} on {day}",
            "will it rain in {city} on {day}",
            "do I need a coat in {city} on {day}",
            "weather for {day} in {city}",
            "how warm will {city} be on {day}",
        ),
    ),
    Tool(
        "send_message",
        (("to", NAMES), ("text", MESSAGES)),
        (
            "tell {to} {text}",
            "send {to} a message: {text}",
            'write "{text}" to {to}',
            "message {to} that says {text}",
            "text {to}: {text}",
        ),
    ),
    Tool(
        "book_table",
        (("people", _numbers(range(2, 13))), ("day", DAYS), ("time", TIMES[24:60])),
        (
            "book a table for {people} on {day} at {time}",
            "we are {people} people, dinner on {day} at {time}",
            "reserve a table on {day} at {time} for {people}",
            "table for {people}, {day}, {time}",
            "I want to eat out with {people} people on {day} at {time}",
        ),
    ),
    Tool(
        "convert_currency",
        (
            ("amount", _numbers(range(5, 505, 5))),
            ("source", CURRENCIES),
            ("target", CURRENCIES),
        ),
        (
            "convert {amount} {source} to {target}",
            "how many {target} are {amount} {source}",
            "what are {amount} {source} in {target}",
            "I have {amount} {source} and need {target}",
            "change {amount} {source} into {target}",
        ),
    ),
    Tool(
        "play_music",
        (("genre", GENRES), ("room", ROOMS)),
        (
            "play {genre} music in the {room}",
            "I want to hear {genre} music in the {room}",
            "put on some {genre} music in the {room}",
            "{genre} music in the {room} please",
        ),
    ),
    Tool(
        "set_temperature",
        (("room", ROOMS), ("degrees", _numbers(range(12, 31)))),
        (
            "heat the {room} to {degrees} degrees",
            "set the {room} to {degrees} degrees",
            "make it {degrees} degrees in the {room}",
            "I want {degrees} degrees in the {room}",
            "{room} temperature {degrees} please",
        ),
    ),
    Tool(
        "set_light",
        (("room", ROOMS), ("percent", _numbers(range(0, 101, 5)))),
        (
            "set the light in the {room} to {percent} percent",
            "dim the {room} light to {percent} percent",
            "{room} light at {percent} percent",
            "I want {percent} percent light in the {room}",
        ),
    ),
    Tool(
        "add_to_list",
        (("count", _numbers(range(2, 25))), ("item", GOODS)),
        (
            "add {count} {item} to the list",
            "we need {count} {item}",
            "put {count} {item} on the shopping list",
            "remember to buy {count} {item}",
            "I have to get {count} {item}",
        ),
    ),
    Tool(
        "translate",
        (("text", PHRASES), ("language", LANGUAGES)),
        (
            'translate "{text}" into {language}',
            'how do you say "{text}" in {language}',
            'what is "{text}" in {language}',
            'say "{text}" in {language}',
        ),
    ),
    Tool(
        "find_route",
        (("start", CITIES), ("end", CITIES)),
        (
            "how do I get from {start} to {end}",
            "find a route from {start} to {end}",
            "I am in {start} and want to go to {end}",
            "show me the way to {end} from {start}",
            "drive from {start} to {end}",
        ),
    ),
)
