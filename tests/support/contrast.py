"""Contrast of the texts of a page, from the computed styles of a browser (WCAG 2, 1.4.3)."""

from __future__ import annotations

from typing import Any

from tests.support.devtools import BrowserTab

# For every element with visible text: the contrast ratio of its colour and the background. A letter in an
# image has the colour ``fill``; where its outline is painted first, the outline is the background.
_SCRIPT = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (colour) => colour.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length && (colour.length < 4 || colour[3] > 0)) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].flatMap((element) => {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = element.getBoundingClientRect();
    if (!own || box.width < 2 || ['title', 'desc'].includes(element.tagName)) return [];
    const style = getComputedStyle(element), drawn = element.tagName === 'text';
    const edge = drawn && style.stroke !== 'none' ? parse(style.stroke) : null;
    const shown = ratio(parse(drawn ? style.fill : style.color), edge || behind(element));
    return [{text: element.textContent.trim().slice(0, 40), ratio: shown}];
  });
})()
"""


def text_contrasts(tab: BrowserTab) -> list[dict[str, Any]]:
    """Return the text and the contrast ratio of each element with text."""
    return tab.evaluate(_SCRIPT)


def low_contrast_texts(tab: BrowserTab, min_ratio: float = 4.5) -> list[dict[str, Any]]:
    """Return the elements whose text has less contrast than required."""
    return [text for text in text_contrasts(tab) if text["ratio"] < min_ratio]
