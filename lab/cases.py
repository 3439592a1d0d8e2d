"""The cases of the lab: its call recordings, and the screen recordings of each."""

import uuid
from dataclasses import dataclass
from enum import StrEnum

ID_NAMESPACE = uuid.UUID("6f0c2a7e-52a1-4c1f-9a55-1f5f6f2c9d10")


class Case(StrEnum):
    """A situation that the muxer must handle [behaviour 3, gir-api 3-5]."""

    PLAIN = "plain"
    GAPS = "gaps"
    TRANSFER = "transfer"
    ENCRYPTED = "encrypted"
    LATE = "late"
    NOTHING = "nothing"
    BEFORE = "before"


@dataclass(frozen=True)
class Agent:
    """A user who takes calls: user name, names, the number in the code of the frames, telephone."""

    username: str
    first: str
    last: str
    number: int
    phone: str


ALICE = Agent("agent1", "Alice", "Baker", 1, "7001")
BRUNO = Agent("agent2", "Bruno", "Amber", 2, "7002")


@dataclass(frozen=True)
class ScreenPart:
    """A screen file: where it starts on the call's axis and its duration, in seconds; late ones are added on demand."""

    offset: float
    seconds: float
    agent: Agent = ALICE
    late: bool = False


@dataclass(frozen=True)
class CallPlan:
    """One call: a name, the length of its audio in seconds, its screen files, and what else is special.

    ``paused``: from when to when, in seconds of the call, its metadata say that the recording was paused; an end of None =
    it was not resumed. The audio continues there, so that each of its seconds can be identified.
    """

    name: str
    seconds: float
    screens: tuple[ScreenPart, ...] = ()
    encrypted: bool = False
    muxed: bool = False
    paused: tuple[tuple[float, float | None], ...] = ()

    def recording_id(self, serial: int = 0) -> str:
        """Return the id of the call recording: always the same for the same call and serial number."""
        return str(uuid.uuid5(ID_NAMESPACE, f"{self.name}-{serial}"))

    @property
    def call_agents(self) -> tuple[Agent, ...]:
        """The agents of the call, in the order in which they take it."""
        return tuple(dict.fromkeys(part.agent for part in self.screens)) or (ALICE,)


CASE_PLANS: dict[Case, tuple[CallPlan, ...]] = {
    Case.PLAIN: (CallPlan("plain", 24, (ScreenPart(0, 24),)),),
    Case.GAPS: (
        CallPlan("gaps", 36, (ScreenPart(4, 8), ScreenPart(12, 7), ScreenPart(24, 7)), paused=((8.25, 10.5), (29, None))),
    ),
    Case.TRANSFER: (CallPlan("transfer", 32, (ScreenPart(0, 15), ScreenPart(16, 16, BRUNO)), paused=((5, 7), (20, 22.5))),),
    Case.ENCRYPTED: (CallPlan("encrypted", 22, (ScreenPart(0, 22),), encrypted=True),),
    Case.LATE: (CallPlan("late", 20, (ScreenPart(0, 20, late=True),)),),
    Case.NOTHING: (CallPlan("no-screen", 20), CallPlan("muxed", 20, (ScreenPart(0, 20),), muxed=True)),
    Case.BEFORE: (CallPlan("before", 25, (ScreenPart(-3, 32),)),),
}
ALL_CASES = tuple(Case)
