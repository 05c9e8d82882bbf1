/**
 * Tables and simple text out of HTML that a tool gave (e.g. a DataFrame): known elements are built anew, the rest is dropped.
 *
 * Nothing of the original is inserted: no attribute but a cell's spans and scope survives, so there is no script, no handler, no
 * address and no style to worry about.
 */

const KEPT = new Set(
  (
    'TABLE THEAD TBODY TFOOT TR TH TD CAPTION DIV P SPAN BR HR UL OL LI DL DT DD H1 H2 H3 H4 H5 H6 PRE CODE B I EM STRONG ' +
    'SUB SUP SMALL DETAILS SUMMARY'
  ).split(' ')
);
const DROPPED = new Set(
  'SCRIPT STYLE TEMPLATE NOSCRIPT IFRAME OBJECT EMBED SVG MATH HEAD TITLE TEXTAREA SELECT'.split(' ')
);
const ATTRIBUTES = ['colspan', 'rowspan', 'scope'];

/** Build what is safe of `html`. Parsing happens in a document of its own that runs and fetches nothing. */
export function safeHtml(html: string): DocumentFragment {
  const parsed = new DOMParser().parseFromString(html, 'text/html');
  const fragment = document.createDocumentFragment();
  copyChildren(parsed.body, fragment);
  return fragment;
}

function copyChildren(from: Node, to: Node): void {
  for (const child of Array.from(from.childNodes)) {
    if (child.nodeType === Node.TEXT_NODE) {
      to.appendChild(document.createTextNode(child.textContent ?? ''));
    } else if (child.nodeType === Node.ELEMENT_NODE) {
      copyElement(child as Element, to);
    }
  }
}

function copyElement(element: Element, to: Node): void {
  const name = element.tagName.toUpperCase();
  if (DROPPED.has(name)) {
    return;
  }
  if (!KEPT.has(name)) {
    copyChildren(element, to);
    return;
  }
  const copy = document.createElement(name);
  for (const attribute of ATTRIBUTES) {
    const value = element.getAttribute(attribute);
    if (value !== null && /^[a-z0-9]{1,8}$/i.test(value)) {
      copy.setAttribute(attribute, value);
    }
  }
  copyChildren(element, copy);
  to.appendChild(copy);
}
