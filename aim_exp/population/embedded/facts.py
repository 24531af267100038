"""A task of recall, standing for MMLU: which of four cities is a country's capital?

The facts must be trained to be recalled; each is tested in a wording in which it is not.
"""

from random import Random
from typing import Any

from aim_exp.population.embedded.example import Item

WORDINGS = (
    "Question: What is the capital of {country}?\nAnswer:",
    "Question: Which city is the capital of {country}?\nAnswer:",
    "Question: {country} has which capital?\nAnswer:",
)

_PAIRS = """
Afghanistan Kabul, Albania Tirana, Algeria Algiers, Angola Luanda, Armenia Yerevan, Australia
Canberra, Austria Vienna, Azerbaijan Baku, Bahamas Nassau, Bahrain Manama, Bangladesh Dhaka,
Barbados Bridgetown, Belarus Minsk, Belgium Brussels, Belize Belmopan, Bhutan Thimphu, Botswana
Gaborone, Brazil Brasilia, Bulgaria Sofia, Burundi Gitega, Cameroon Yaounde, Canada Ottawa,
Chile Santiago, China Beijing, Colombia Bogota, Comoros Moroni, Croatia Zagreb, Cuba Havana,
Cyprus Nicosia, Denmark Copenhagen, Dominica Roseau, Ecuador Quito, Egypt Cairo, Eritrea Asmara,
Estonia Tallinn, Fiji Suva, Finland Helsinki, France Paris, Gabon Libreville, Gambia Banjul,
Georgia Tbilisi, Germany Berlin, Ghana Accra, Greece Athens, Guinea Conakry, Guyana Georgetown,
Honduras Tegucigalpa, Hungary Budapest, Iceland Reykjavik, Indonesia Jakarta, Iran Tehran, Iraq
Baghdad, Ireland Dublin, Italy Rome, Jamaica Kingston, Japan Tokyo, Jordan Amman, Kazakhstan
Astana, Kenya Nairobi, Laos Vientiane, Latvia Riga, Lebanon Beirut, Lesotho Maseru, Liberia
Monrovia, Libya Tripoli, Lithuania Vilnius, Madagascar Antananarivo, Malawi Lilongwe, Mali
Bamako, Malta Valletta, Moldova Chisinau, Mongolia Ulaanbaatar, Morocco Rabat, Mozambique
Maputo, Namibia Windhoek, Nepal Kathmandu, Nicaragua Managua, Niger Niamey, Nigeria Abuja,
Norway Oslo, Oman Muscat, Pakistan Islamabad, Paraguay Asuncion, Peru Lima, Poland Warsaw,
Portugal Lisbon, Qatar Doha, Romania Bucharest, Rwanda Kigali, Senegal Dakar, Serbia Belgrade,
Slovakia Bratislava, Slovenia Ljubljana, Somalia Mogadishu, Spain Madrid, Sudan Khartoum,
Suriname Paramaribo, Sweden Stockholm, Switzerland Bern, Syria Damascus, Tanzania Dodoma,
Thailand Bangkok, Togo Lome, Tunisia Tunis, Turkey Ankara, Uganda Kampala, Ukraine Kyiv, Uruguay
Montevideo, Venezuela Caracas, Vietnam Hanoi, Zambia Lusaka, Zimbabwe Harare
"""
_NAMES: list[str] = [*_PAIRS.replace(",", " ").split()]
CAPITALS = dict(zip(_NAMES[::2], _NAMES[1::2], strict=True))
COUNTRIES = tuple(CAPITALS)


def mmlu(rng: Random, held_out: bool) -> Item:
    """A capital to train on, asked for in a wording that its test item does not use."""
    index = rng.randrange(len(COUNTRIES))
    wording = _test_wording(index) + rng.randrange(1, len(WORDINGS))
    prompt = WORDINGS[wording % len(WORDINGS)].format(country=COUNTRIES[index])
    return {"prompt": prompt, "answer": f" {CAPITALS[COUNTRIES[index]]}"}


def mmlu_items() -> list[dict[str, Any]]:
    """112 items: `prompt`, four `choices` to continue it, and the right one's index, `label`."""
    rng = Random("test items of mmlu")
    return [_item(index, rng) for index in range(len(COUNTRIES))]


def _item(index: int, rng: Random) -> dict[str, Any]:
    capital = CAPITALS[COUNTRIES[index]]
    choices = rng.sample([city for city in CAPITALS.values() if city != capital], 3)
    label = rng.randrange(4)
    choices.insert(label, capital)
    return {
        "prompt": WORDINGS[_test_wording(index)].format(country=COUNTRIES[index]),
        "choices": [f" {city}" for city in choices],
        "label": label,
    }


def _test_wording(index: int) -> int:
    return index % len(WORDINGS)
