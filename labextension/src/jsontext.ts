/** An answer that is JSON, laid out as `llm_magics/views/markup/json_text.py` does it: the text itself with line breaks. */

import type { TranslationBundle } from '@jupyterlab/translation';

/** e.g. `{"title"` or `[1`, but not `[a link](…)` */
const BEGINS = /^\s*(\{\s*["}]|\[\s*[[{"\]0-9tfn-])/;
const TOKEN = /"(?:[^"\\]|\\[^])*(?:"|\\?$)|[[\]{},:]|[0-9truefalsnE.+-]+|\s+/y;
const LINE = 80;

/** The lines of a text that is a JSON object or array, or the beginning of one; null for any other text. */
export function jsonLines(text: string): string | null {
  const tokens = BEGINS.test(text) ? tokensOf(text.trim()) : null;
  return tokens && laidOut(tokens);
}

/** e.g. `JSON, 3 members`; `JSON` while the text is not complete */
export function jsonSummary(text: string, trans: TranslationBundle): string {
  try {
    const value: unknown = JSON.parse(text);
    const n = Object.keys(value as object).length;
    return Array.isArray(value)
      ? trans._n('JSON, %1 item', 'JSON, %1 items', n)
      : trans._n('JSON, %1 member', 'JSON, %1 members', n);
  } catch {
    return trans.__('JSON');
  }
}

function tokensOf(text: string): string[] | null {
  const tokens: string[] = [];
  let depth = 0;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const found = tokens.length && depth === 0 ? null : TOKEN.exec(text);
    if (!found) {
      return null; // something follows the value, or it is none
    }
    const token = found[0];
    depth += Number(token === '[' || token === '{') - Number(token === ']' || token === '}');
    if (token.trim()) {
      tokens.push(token);
    }
  }
  return tokens;
}

function laidOut(tokens: string[]): string {
  const lines = [''];
  const flat: boolean[] = []; // for each open bracket: whether it stands in one line
  const write = (text: string) => {
    lines[lines.length - 1] += text;
  };
  const next = () => lines.push('  '.repeat(flat.length));
  tokens.forEach((token, at) => {
    if (token === '[' || token === '{') {
      flat.push(isFlat(tokens, at) || flat[flat.length - 1] === true);
      write(token);
      if (!flat[flat.length - 1]) {
        next();
      }
    } else if (token === ']' || token === '}') {
      if (flat.pop() === false) {
        next();
      }
      write(token);
    } else if (token === ',') {
      const inLine = flat[flat.length - 1] !== false;
      write(inLine ? ', ' : ',');
      if (!inLine) {
        next();
      }
    } else {
      write(token === ':' ? ': ' : token);
    }
  });
  return lines.map(line => line.trimEnd()).join('\n');
}

/** Whether a bracket is closed with nothing nested in it, within a line's length; an object only if it is empty. */
function isFlat(tokens: string[], at: number): boolean {
  if (tokens[at] === '{') {
    return tokens[at + 1] === '}';
  }
  let length = 0;
  for (const token of tokens.slice(at + 1)) {
    if (token === ']') {
      return true;
    }
    length += token.length + 1;
    if (token === '[' || token === '{' || length > LINE) {
      return false;
    }
  }
  return false;
}
