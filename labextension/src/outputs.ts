/** What a tool gave, as MIME bundles, to elements: the richest form that is safe, never HTML as it came. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { make, printable } from './dom';
import type { IHost } from './host';
import { MarkdownView } from './markdownview';
import { safeHtml } from './safehtml';
import type { Bundle } from './transcript';

const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
const BASE64 = /^[a-z0-9+/=\s]*$/i;

/** Draw one MIME bundle. */
export function drawOutput(bundle: Bundle, host: IHost): HTMLElement {
  const { trans } = host;
  const text = (type: string) => {
    const value = bundle[type];
    return Array.isArray(value) ? value.join('') : typeof value === 'string' ? value : undefined;
  };
  const plain = text('text/plain');
  const description = plain || trans.__('picture made by the tool');
  for (const type of PICTURES) {
    const data = text(type);
    if (data !== undefined && BASE64.test(data)) {
      return picture(`data:${type};base64,${data}`, description);
    }
  }
  const svg = text('image/svg+xml');
  if (svg !== undefined) {
    // As a picture an SVG can neither run scripts nor fetch anything.
    return picture(`data:image/svg+xml,${encodeURIComponent(svg)}`, description);
  }
  const html = text('text/html');
  if (html !== undefined) {
    const frame = make('div', 'llm-Table jp-RenderedHTMLCommon', {
      tabindex: '0',
      role: 'group',
      'aria-label': trans.__('tool output')
    });
    frame.append(safeHtml(printable(html)));
    return frame;
  }
  const markdown = text('text/markdown') ?? text('text/latex');
  if (markdown !== undefined) {
    const view = new MarkdownView(host);
    view.update(markdown, true);
    return view.node;
  }
  const json = bundle['application/json'];
  return preformatted(
    plain ?? (json === undefined ? Object.keys(bundle).join(', ') : JSON.stringify(json, null, 2)),
    trans
  );
}

/** Draw text as it is, in a box that can be scrolled with the keyboard. */
export function preformatted(text: string, trans: TranslationBundle): HTMLElement {
  return make(
    'pre',
    'llm-Pre',
    { tabindex: '0', role: 'group', 'aria-label': trans.__('tool output') },
    printable(withoutAnsi(text))
  );
}

function picture(address: string, description: string): HTMLElement {
  return make('img', 'llm-Picture', {
    src: address,
    alt: printable(description)
  });
}

/** e.g. the colours of a traceback */
function withoutAnsi(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '');
}
