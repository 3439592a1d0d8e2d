"""The metadata of generated recordings, in the shapes of gir-api 3 and 4."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lab.cases import Agent, CallPlan, ScreenPart
from lab.site import LabSite
from lab.times import wire_time

JSON = dict[str, Any]
CALLER, DIALED = "+1 (650) 555-0142", "8005550100"
STARTED_STATE = "SRSScreenRecordingStateStarted"


def call_media(site: LabSite, plan: CallPlan, id: str, start: datetime, stored: Path, pkcs7: str | None) -> JSON:
    """Return the media entry of a call's stored audio file [gir-api 3]."""
    agent = plan.call_agents[0]
    return {
        "mediaId": stored.name,
        "type": "audio/mp3",
        **_time_fields(start, plan.seconds, stored),
        "callUUID": id,
        "tenant": "Environment",
        "ivrprofile": "lab",
        "parameters": {"agentId": agent.username, "connId": id[:16], "ani": CALLER, "dnis": DIALED},
        "masks": _pause_masks(plan, start),
        "partitions": [],
        "accessgroups": ["/"],
        "originalMediaDescriptor": site.media.call_descriptor(stored.name),
        **_encryption_fields(site, pkcs7),
        **_rws_address(site, f"/api/v2/ops/contact-centers/{site.ccid}/recordings/{id}/content/{stored.name}"),
    }


def _pause_masks(plan: CallPlan, start: datetime) -> list[JSON]:
    """Return the masks of a call: those that pause its recording, then those that resume it [gir-api 3]."""
    changes = [(begin, "paused") for begin, _ in plan.paused]
    changes += [(end, "resume") for _, end in plan.paused if end is not None]
    return [{"time": wire_time(start + timedelta(seconds=at)), "type": kind} for at, kind in changes]


def screen_media(site: LabSite, part: ScreenPart, id: str, start: datetime, stored: Path, pkcs7: str | None) -> JSON:
    """Return the media entry of a stored screen file that starts at `start` [gir-api 4]."""
    return {
        "mediaId": stored.name,
        "type": "video/mp4",
        **_time_fields(start, part.seconds, stored),
        "parameters": {"region": site.region, "contact": {"userName": part.agent.username}},
        "originalMediaDescriptor": site.media.screen_descriptor(stored.name),
        **_encryption_fields(site, pkcs7),
        **_rws_address(site, f"/internal-api/contact-centers/{site.ccid}/screen-recordings/{id}/content/{stored.name}"),
    }


def muxed_media(
    site: LabSite, plan: CallPlan, id: str, start: datetime, stored: Path, sources: list[str], pkcs7: str | None = None
) -> JSON:
    """Return the media entry of a muxed file made from ``sources`` [gir-api 5]."""
    part = ScreenPart(0, plan.seconds, plan.call_agents[0])
    media = screen_media(site, part, id, start, stored, pkcs7)
    media["parameters"]["muxed_mediaIds"] = sources
    return media


def call_recording(site: LabSite, plan: CallPlan, id: str, start: datetime, media: JSON) -> JSON:
    """Return the call recording with its audio [gir-api 3]; a muxed one has the label already."""
    return {
        "id": id,
        "callerPhoneNumber": CALLER,
        "dialedPhoneNumber": DIALED,
        "region": site.region,
        "callType": "Inbound",
        "startTime": wire_time(start),
        "stopTime": wire_time(start + timedelta(seconds=plan.seconds)),
        "mediaFiles": [media],
        "eventHistory": _joined_events(plan, id, start),
        "labels": [{"name": "screenRecording"}] if plan.muxed else [],
    }


def _joined_events(plan: CallPlan, id: str, start: datetime) -> list[JSON]:
    """Return a Joined event per party; the data of agents state that their screens are recorded [gir-api 3]."""
    caller = {"type": "External", "phoneNumber": CALLER}
    events = [{"occurredAt": wire_time(start), "calluuid": id, "event": "Joined", "contact": caller, "data": {}}]
    for agent in plan.call_agents:
        joins = min((part.offset for part in plan.screens if part.agent == agent), default=0)
        data = {"SRSScreenRecordingState": STARTED_STATE, "ServiceType": "lab", "GSIP_REC_FN": id}
        time = start + timedelta(seconds=max(0, joins))
        events.append(
            {
                "occurredAt": wire_time(time),
                "calluuid": id,
                "event": "Joined",
                "contact": _agent_contact(agent),
                "data": data,
            }
        )
    return events


def _agent_contact(agent: Agent) -> JSON:
    return {
        "type": "User",
        "userName": agent.username,
        "firstName": agent.first,
        "lastName": agent.last,
        "phoneNumber": agent.phone,
    }


def _time_fields(start: datetime, seconds: float, stored: Path) -> JSON:
    return {
        "startTime": wire_time(start),
        "stopTime": wire_time(start + timedelta(seconds=seconds)),
        "duration": str(round(seconds * 1000)),
        "size": str(stored.stat().st_size),
    }


def _encryption_fields(site: LabSite, pkcs7: str | None) -> JSON:
    return {"pkcs7": pkcs7, "certAlias": [recipient.alias for recipient in site.recipients]} if pkcs7 else {}


def _rws_address(site: LabSite, path: str) -> JSON:
    return {"mediaUri": site.rws_url + path, "mediaPath": path}
