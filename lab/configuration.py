"""A muxer.cfg for the lab [behaviour 2]."""

from pathlib import Path

from lab.site import LabSite

SECTIONS = ("htcc", "rcs", "webdav", "processing", "advanced", "logfile")


def config_text(site: LabSite, folder: Path, overrides: dict[str, str]) -> str:
    """Return the text of a complete configuration file for a lab, with overrides by `section.option`.

    The folders for temporary files and logs are created, because the muxer does not start without them.
    """
    settings = _muxer_settings(site, folder)
    for name, value in overrides.items():
        section, _, option = name.partition(".")
        settings.setdefault(section, {})[option] = value
    for folder_option in (settings["processing"]["temp_dir"], settings["logfile"]["logfile_path"]):
        Path(folder_option).mkdir(parents=True, exist_ok=True)
    return "\n".join(_section_text(name, settings[name]) for name in settings)


def _section_text(name: str, options: dict[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{option} = {value}" for option, value in options.items()), ""])


def _muxer_settings(site: LabSite, folder: Path) -> dict[str, dict[str, str]]:
    """Return the options of the muxer; the poll interval of three seconds is for people who watch."""
    rws, rcs, dav = site.rws_account, site.rcs_account, site.dav_account
    contents = (
        {
            "base_uri": site.rws_url,
            "contact_center_id": site.ccid,
            "username": rws.username,
            "password": rws.password,
            "trusted_ca": "false",
            "rws_timeout": "30",
        },
        {"base_uri": site.rcs_url, "username": rcs.username, "password": rcs.password, "trusted_ca": "false"},
        {"username": dav.username, "password": dav.password, "trusted_ca": "false"},
        {
            "window_past": "720",
            "window_past_older_than": "0",
            "min_poll_interval": "0.05",
            "temp_dir": str(folder / "temp"),
            "batch_read_screen_recording_metadata": "1",
        },
        {"worker_threads": "2", "pagination": "100", "mark_screen_recording_label": "1"},
        {"logfile_path": str(folder / "log"), "level": "info"},
    )
    bucket = site.media.bucket
    return dict(zip(SECTIONS, contents, strict=True)) | ({"s3": bucket.external.muxer_settings} if bucket else {})
