// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Make control characters visible, as the kernel does: U+202E turns around what stands behind it, also of the page's own text. */
export function printable(text: string): string {
  return text.replace(CONTROL, '\ufffd');
}

/** Make an element with a class, attributes and children (strings are text, never HTML). */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = '',
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Make a button whose accessible name is `label`. */
export function button(
  text: string,
  label: string,
  onClick: (button: HTMLButtonElement) => void
): HTMLButtonElement {
  const element = make('button', 'llm-Button', { type: 'button', 'aria-label': label, title: label }, text);
  element.addEventListener('click', () => onClick(element));
  return element;
}

/** Set an element's text, and only touch the page where it differs; text that grew is appended. */
export function setText(element: HTMLElement, text: string): void {
  const last = element.lastChild;
  const shown = element.textContent ?? '';
  if (shown === text) {
    return;
  }
  if (last instanceof Text && element.childNodes.length === 1 && text.startsWith(shown)) {
    last.appendData(text.slice(shown.length));
  } else {
    element.textContent = text;
  }
}
