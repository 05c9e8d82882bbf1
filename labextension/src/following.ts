/** Keeping the end of what grows in sight. */

/** The end of an answer may lie so far below the notebook's edge and still be followed. */
const SLACK_PX = 48;

/**
 * What brings the end of a growing answer back into sight, if it is in sight now: whoever has scrolled up to read, or elsewhere, is
 * left there.
 */
export function following(node: HTMLElement): (() => void) | null {
  const scroller = node.closest<HTMLElement>('.jp-WindowedPanel-outer');
  if (!scroller) {
    return null;
  }
  const { top, bottom: edge } = scroller.getBoundingClientRect();
  const end = node.getBoundingClientRect().bottom;
  if (end < top || end > edge + SLACK_PX) {
    return null;
  }
  return () => {
    const hidden = node.getBoundingClientRect().bottom - edge;
    if (hidden > 0) {
      scroller.scrollTop += hidden;
    }
  };
}
