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
