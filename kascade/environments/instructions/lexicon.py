"""Closed lists of words that the checks of IFBench count by."""

from __future__ import annotations


def _ordered(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


PERSON_NAMES = _ordered(
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia "
    "Benjamin Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob "
    "Scarlett Nathan Victoria Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora "
    "Andrew Aria Joseph Claire Ryan Stella Jonathan"
)
CONJUNCTIONS = _set("and but for nor or so yet")
PRONOUNS = _set(
    "i me we us you he him she her it they them my mine our ours your yours his hers its their theirs "
    "myself ourselves yourself yourselves himself herself itself themselves this that these those who "
    "whom whose which what whoever whomever whatever whichever anybody anyone anything everybody everyone "
    "everything nobody nothing somebody someone something each either neither both all some any none"
)
# English stop words of NLTK's corpus; forms with an apostrophe never match a word of letters.
STOP_WORDS = _set(
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her "
    "hers herself it its itself they them their theirs themselves what which who whom this that these "
    "those am is are was were be been being have has had having do does did doing a an the and but if or "
    "because as until while of at by for with about against between into through during before after "
    "above below to from up down in out on off over under again further then once here there when where "
    "why how all any both each few more most other some such no nor not only own same so than too very s "
    "t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma "
    "mightn mustn needn shan shouldn wasn weren won wouldn"
)
# European capitals above 45 degrees north, from the highest latitude down, as IFBench lists them.
NORTHERN_CAPITALS = _ordered(
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin "
    "Amsterdam Warsaw London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau "
    "Bern Ljubljana Zagreb"
)
# Verbs that answers begin with, instructions mostly. IFBench's tag set has modals apart from verbs.
VERBS = _set(
    "accept access achieve acknowledge act adapt add address adjust adopt advise agree aim align allow "
    "alter analyze analyse announce answer apply appreciate approach arrange arrive ask assemble assess "
    "assign assist assume attach attempt attend avoid bake balance base be bear beat become begin believe "
    "bend blend boil bring build burn buy calculate call capture care carry cast catch celebrate "
    "challenge change check choose chop cite claim clarify classify clean click climb close code collect "
    "combine come comment compare compile complete compose compute concentrate conclude conduct configure "
    "confirm connect consider consist construct consult contact contain continue contribute convert "
    "convince cook copy correct count cover craft create cut dance deal debug decide declare decorate "
    "define deliver demonstrate depend describe deserve design detect determine develop devise differ dig "
    "discover discuss divide do document download draft draw dream drink drive drop earn eat edit educate "
    "elaborate embark embrace emphasize employ enable encourage engage enhance enjoy ensure enter "
    "envision establish estimate evaluate examine excel execute exercise exist expand expect experience "
    "experiment explain explore express extend extract face fail fall feed feel fetch fight fill filter "
    "find finish fit fix fly focus fold follow forget form format foster gain gather generate get give go "
    "grab grasp greet group grow guarantee guess guide handle hang happen harness have hear help hide "
    "highlight hire hold hope identify ignore illustrate imagine implement import improve include "
    "incorporate increase indicate inform initialize insert inspect inspire install integrate introduce "
    "invest investigate invite involve issue iterate join journey jump keep know label launch lay lead "
    "lean learn leave lend let leverage lie lift like limit link list listen live load locate log look "
    "lose love maintain make manage map mark master match mean measure meet mention merge mix modify "
    "monitor motivate move multiply navigate need negotiate nest note notice observe obtain occur offer "
    "open operate opt optimize order organize outline overcome own pack paint participate pass pay "
    "perform pick place plan plant play point practice prefer prepare present preserve press prevent "
    "print prioritize proceed process produce program promote propose protect prove provide publish pull "
    "purchase pursue push put quote raise reach react read realize recall receive recognize recommend "
    "record reduce refer reflect refuse regard register reimagine relate relax release rely remain "
    "remember remove render repeat replace reply report represent request require research reserve "
    "resolve respect respond rest restate return reveal review revise rewrite ride ring rise roll rotate "
    "run save say schedule score search secure see seek seem select sell send separate serve set share "
    "shift shine show shut simplify simulate sing sit sketch skip sleep slice smile solve sort speak "
    "specify spend spread stand start state stay stick stir stop store strengthen strike structure study "
    "submit subtract succeed suggest summarize supply support suppose swim take talk taste teach tell "
    "test thank think throw track train transform translate travel treat trust try turn understand unlock "
    "unleash update upgrade upload use utilize validate verify view visit visualize wait wake walk want "
    "warm wash watch wear weigh welcome win wish wonder work worry write yield"
)
IRREGULAR_VERBS = _set(
    "am are is was were been being has had having does did done goes went gone said says made took taken "
    "came saw seen knew known got gotten gave given found thought told became left felt brought began "
    "begun kept held wrote written stood heard meant met ran paid sat spoke spoken lay led grew grown "
    "lost fell fallen sent built understood drew drawn broke broken spent cut rose risen drove driven "
    "bought wore worn chose chosen ate eaten flew flown forgot forgotten hid hidden threw thrown rode "
    "ridden sang sung slept sold shown swam swum taught won lying dying tying"
)


def is_verb(word: str) -> bool:
    """Whether a word can be a verb, in any form: by a closed list and the regular endings."""
    word = word.lower()
    return word in IRREGULAR_VERBS or any(base in VERBS for base in _bases(word))


def _bases(word: str) -> list[str]:
    """What a word may be a form of."""
    bases = [word]
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            stem = word.removesuffix(ending)
            bases += [stem, stem + "e"]
            if stem[-1] == "i":
                bases.append(stem[:-1] + "y")
            if stem[-1] == stem[-2:-1]:  # planned, running
                bases.append(stem[:-1])
    return bases
