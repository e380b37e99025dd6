"""Sentences for synthetic speech: numbers, dates, names, short sentences.

A small closed vocabulary recombined, so that sentences of a test set are new
but made of words that minutes of training data contain. Must not read or
speak anything: text only, from the tables below.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from s3router.errors import one_of


@dataclass(frozen=True)
class Table:
    """What one language's sentences are made of.

    Arguments
    ---------
    digits : str
        The words for 0 to 9, separated by spaces.
    ordinals : str
        Day of the month, first to ninth; the digits 1 to 9 where empty.
    days : str
        Days of the week as they stand in the templates, separated by "/".
    months : str
        Likewise.
    names : str
        First names, separated by spaces.
    templates : tuple of str
        Sentences with the slots {digits}, {day}, {date}, {month}, {name} and
        {other} (another name).
    space : str
        What stands between digits.
    """

    digits: str
    ordinals: str
    days: str
    months: str
    names: str
    templates: tuple[str, ...]
    space: str = " "


TABLES = {
    "de": Table(
        "null eins zwei drei vier fünf sechs sieben acht neun",
        "erste zweite dritte vierte fünfte sechste siebte achte neunte",
        "Montag/Dienstag/Mittwoch/Donnerstag/Freitag/Samstag/Sonntag",
        "Januar/Februar/März/April/Mai/Juni/Juli/August/September/Oktober/"
        "November/Dezember",
        "Anna Lukas Maria Felix Sophie Jonas",
        (
            "Die Nummer ist {digits}.",
            "Heute ist {day}, der {date} {month}.",
            "{name} kommt am {day} nach Berlin.",
            "{name} und {other} haben am {day} Zeit.",
        ),
    ),
    "en": Table(
        "zero one two three four five six seven eight nine",
        "first second third fourth fifth sixth seventh eighth ninth",
        "Monday/Tuesday/Wednesday/Thursday/Friday/Saturday/Sunday",
        "January/February/March/April/May/June/July/August/September/"
        "October/November/December",
        "Anna Peter Mary David Susan Robert",
        (
            "The number is {digits}.",
            "Today is {day}, the {date} of {month}.",
            "{name} comes to London on {day}.",
            "{name} and {other} have time on {day}.",
        ),
    ),
    "es": Table(
        "cero uno dos tres cuatro cinco seis siete ocho nueve",
        "",
        "lunes/martes/miércoles/jueves/viernes/sábado/domingo",
        "enero/febrero/marzo/abril/mayo/junio/julio/agosto/septiembre/"
        "octubre/noviembre/diciembre",
        "Ana Pedro María Carlos Lucía Miguel",
        (
            "El número es {digits}.",
            "Hoy es {day}, {date} de {month}.",
            "{name} llega a Madrid el {day}.",
            "{name} y {other} tienen tiempo el {day}.",
        ),
    ),
    "fr": Table(
        "zéro un deux trois quatre cinq six sept huit neuf",
        "premier deux trois quatre cinq six sept huit neuf",
        "lundi/mardi/mercredi/jeudi/vendredi/samedi/dimanche",
        "janvier/février/mars/avril/mai/juin/juillet/août/septembre/"
        "octobre/novembre/décembre",
        "Anne Pierre Marie Louis Sophie Michel",
        (
            "Le numéro est {digits}.",
            "Nous sommes {day} {date} {month}.",
            "{name} vient à Paris {day}.",
            "{name} et {other} ont le temps {day}.",
        ),
    ),
    "it": Table(
        "zero uno due tre quattro cinque sei sette otto nove",
        "primo due tre quattro cinque sei sette otto nove",
        "lunedì/martedì/mercoledì/giovedì/venerdì/sabato/domenica",
        "gennaio/febbraio/marzo/aprile/maggio/giugno/luglio/agosto/"
        "settembre/ottobre/novembre/dicembre",
        "Anna Pietro Maria Luca Giulia Marco",
        (
            "Il numero è {digits}.",
            "Oggi è {day} {date} {month}.",
            "{name} arriva a Roma {day}.",
            "{name} e {other} hanno tempo {day}.",
        ),
    ),
    "nl": Table(
        "nul een twee drie vier vijf zes zeven acht negen",
        "",
        "maandag/dinsdag/woensdag/donderdag/vrijdag/zaterdag/zondag",
        "januari/februari/maart/april/mei/juni/juli/augustus/september/"
        "oktober/november/december",
        "Anna Pieter Maria Daan Sanne Willem",
        (
            "Het nummer is {digits}.",
            "Vandaag is het {day} {date} {month}.",
            "{name} komt op {day} naar Utrecht.",
            "{name} en {other} hebben op {day} tijd.",
        ),
    ),
    "ru": Table(
        "ноль один два три четыре пять шесть семь восемь девять",
        "первое второе третье четвёртое пятое шестое седьмое восьмое девятое",
        "в понедельник/во вторник/в среду/в четверг/в пятницу/в субботу/"
        "в воскресенье",
        "января/февраля/марта/апреля/мая/июня/июля/августа/сентября/"
        "октября/ноября/декабря",
        "Анна Иван Мария Павел Ольга Сергей",
        (
            "Номер {digits}.",
            "Сегодня {date} {month}.",
            "{name} едет в Москву {day}.",
            "{name} и {other} дома {day}.",
        ),
    ),
    "sw": Table(
        "sifuri moja mbili tatu nne tano sita saba nane tisa",
        "",
        "Jumatatu/Jumanne/Jumatano/Alhamisi/Ijumaa/Jumamosi/Jumapili",
        "Januari/Februari/Machi/Aprili/Mei/Juni/Julai/Agosti/Septemba/"
        "Oktoba/Novemba/Desemba",
        "Asha Juma Neema Baraka Zawadi Hamisi",
        (
            "Namba ni {digits}.",
            "Leo ni {day}, tarehe {date} {month}.",
            "{name} anakuja Nairobi {day}.",
            "{name} na {other} wana nafasi {day}.",
        ),
    ),
    "tr": Table(
        "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
        "",
        "pazartesi/salı/çarşamba/perşembe/cuma/cumartesi/pazar",
        "Ocak/Şubat/Mart/Nisan/Mayıs/Haziran/Temmuz/Ağustos/Eylül/Ekim/"
        "Kasım/Aralık",
        "Ayşe Mehmet Zeynep Ali Elif Murat",
        (
            "Numara {digits}.",
            "Bugün {date} {month} {day}.",
            "{name} {day} günü Ankara yolunda.",
            "{name} ile {other} {day} günü evde.",
        ),
    ),
    "zh": Table(
        "零 一 二 三 四 五 六 七 八 九",
        "",
        "星期一/星期二/星期三/星期四/星期五/星期六/星期天",
        "一月/二月/三月/四月/五月/六月/七月/八月/九月/十月/十一月/十二月",
        "小明 小红 王芳 李伟 张丽 陈静",
        (
            "号码是{digits}。",
            "今天是{day}，{month}{date}号。",
            "{name}{day}来北京。",
            "{name}和{other}{day}有时间。",
        ),
        space="",
    ),
}


def sentences(language: str, seed: int) -> Iterator[str]:
    """Yield sentences, never the same twice.

    Arguments
    ---------
    language : str
        As "es" or "zh-CN"; the region is ignored.
    seed : int
        Of the order.

    Yields
    ------
    str
        As one would write it, numbers in words; there are over 10,000, after
        which the iterator ends.

    Raises
    ------
    SettingError
        If there is no table for the language.

    Example
    -------
    >>> text = sentences("en", seed=1)
    >>> next(text) != next(text)
    True
    """
    code = one_of(
        language.split("-")[0], TABLES, "language of the synthetic texts"
    )
    generator = np.random.default_rng([seed, zlib.crc32(code.encode())])
    return _distinct(TABLES[code], _Decks(generator))


class _Decks:
    """Draws without putting back, so that few sentences have all words."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self._left: dict[str, list[str]] = {}

    def draw(self, slot: str, values: Sequence[str]) -> str:
        """Return the next card of a slot's deck."""
        left = self._left.setdefault(slot, [])
        if not left:
            left.extend(self.generator.permutation(values).tolist())
        return left.pop()


def _distinct(table: Table, decks: _Decks) -> Iterator[str]:
    seen: set[str] = set()
    misses = 0
    while misses < 1000:
        sentence = _sentence(table, decks)
        if sentence in seen:
            misses += 1
            continue
        misses = 0
        seen.add(sentence)
        yield sentence


def _sentence(table: Table, decks: _Decks) -> str:
    digits = table.digits.split()
    names = table.names.split()
    template = decks.draw("template", table.templates)
    values = {}
    if "{digits}" in template:
        count = 3 + int(decks.generator.integers(3))
        values["digits"] = table.space.join(
            decks.draw("digit", digits) for _ in range(count)
        )
    if "{date}" in template:
        values["date"] = decks.draw(
            "date", table.ordinals.split() or digits[1:]
        )
        values["month"] = decks.draw("month", table.months.split("/"))
    if "{day}" in template:
        values["day"] = decks.draw("day", table.days.split("/"))
    if "{name}" in template:
        values["name"] = decks.draw("name", names)
    if "{other}" in template:
        others = [name for name in names if name != values["name"]]
        values["other"] = str(decks.generator.choice(others))
    text = template.format(**values)
    return text[0].upper() + text[1:]
