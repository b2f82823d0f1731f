"""The small world that generated tasks speak of: closed lists, so that a small tokenizer covers them."""

from __future__ import annotations

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Paris", "Delhi", "Tokyo", "Quito")
COLORS = ("red", "blue", "green", "white", "black", "yellow", "brown", "gray")
ADJECTIVES = ("old", "quiet", "bright", "small", "cold", "warm", "deep", "tall", "soft", "young")
NOUNS = (
    "river", "garden", "castle", "market", "forest", "bridge", "island", "harbor", "village", "mountain",
    "lake", "tower", "road", "valley", "field", "boat", "train", "school", "house", "door",
    "window", "lamp", "stone", "tree", "bird", "horse", "dog", "cat", "fox", "bear",
    "wolf", "fish", "apple", "bread", "honey", "cheese", "tea", "salt", "gold", "silver",
    "iron", "glass", "paper", "book", "letter", "song", "drum", "bell", "star", "moon",
    "sun", "cloud", "rain", "snow", "wind", "fire", "winter", "summer", "morning", "night",
)  # fmt: skip
VERBS = ("sees", "finds", "loves", "keeps", "moves", "brings", "follows", "leaves", "meets", "holds")
PLACES = ("near the", "under the", "behind the", "beside the", "above the")

CAPITALS = {
    "Norvia": "Telba", "Sarland": "Moxi", "Kethia": "Brun", "Ostaria": "Vell", "Pluvia": "Dorn",
    "Zemba": "Rask", "Quora": "Nim", "Ulden": "Fara", "Tavos": "Keld", "Ilmar": "Sorn",
    "Baldia": "Hesk", "Corvia": "Lund", "Drava": "Pell", "Esmar": "Tolk", "Fenia": "Wick",
    "Galdor": "Yarn",
}  # fmt: skip
COLOR_OF = {
    "grass": "green", "snow": "white", "blood": "red", "coal": "black", "the sea": "blue",
    "a lemon": "yellow", "mud": "brown", "smoke": "gray",
}  # fmt: skip
KIND_OF = {
    "dog": "animal", "cat": "animal", "fox": "animal", "bear": "animal", "wolf": "animal", "horse": "animal",
    "apple": "food", "bread": "food", "honey": "food", "cheese": "food", "salt": "food",
    "iron": "metal", "gold": "metal", "silver": "metal",
    "winter": "season", "summer": "season",
    "monday": "day", "friday": "day", "sunday": "day",
    "river": "water", "lake": "water", "rain": "water",
}  # fmt: skip
OPPOSITE_OF = {
    "old": "young", "cold": "warm", "deep": "shallow", "tall": "short", "soft": "hard", "bright": "dark",
    "small": "large", "quiet": "loud", "open": "closed", "early": "late", "empty": "full", "wet": "dry",
}  # fmt: skip
