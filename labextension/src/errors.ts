/** What a cell's outputs say of an error, and what can be done about it. */

/** What is offered below a cell: to explain and fix a traceback, or to load the magics that the kernel did not know. */
export type Offer = 'explain' | 'load' | null;

type Output = Record<string, any>;

/** The magics of ours, by name. */
const OURS = 'chat|compare|tool|tools|load_model|unload_model|models|thread|llm';

/** Cells that talk with a model are no code to be mended, e.g. `%%chat`, `%load_model smollm2-135m`. */
const OWN = new RegExp(`^\\s*%%?(?:${OURS}|load_ext|reload_ext)\\b`);

/**
 * e.g. "UsageError: Cell magic `%%chat` not found." and "UsageError: Line magic function `%load_model` not found.", but not
 * "... `%chat` not found (But cell magic `%%chat` exists, ...": there they are loaded, and the line is to be corrected.
 */
const UNKNOWN_MAGIC = new RegExp(
  `^UsageError: (?:Cell|Line) magic (?:function )?\`%%?(?:${OURS})\` not found(?! \\(But )`
);

// eslint-disable-next-line no-control-regex
const ANSI = /\x1b\[[0-9;?]*[A-Za-z]/g;

/** The longest text of a cell's outputs that goes to the kernel, in characters; the kernel cuts prompts much shorter. */
const LONGEST = 20_000;

/** What to offer for a code cell with this source and these outputs. */
export function offerFor(source: string, outputs: readonly Output[]): Offer {
  const ours = OWN.test(source);
  if (ours && outputs.some(output => UNKNOWN_MAGIC.test(streamText(output)))) {
    return 'load';
  }
  return !ours && outputs.some(isTraceback) ? 'explain' : null;
}

/** What the outputs say in plain text, and their error apart, for a kernel that did not see the cell run. */
export function plainOutputs(outputs: readonly Output[]): { output: string; error: string } {
  const error = outputs.find(isError);
  const texts = outputs.map(output => streamText(output) || joined(output.data?.['text/plain']));
  return { output: cut(texts.filter(Boolean).join('\n')), error: error ? cut(tracebackText(error)) : '' };
}

/** Not the one line that an error of ours is, and not what an interrupt leaves. */
function isTraceback(output: Output): boolean {
  if (!isError(output) || output.ename === 'KeyboardInterrupt') {
    return false;
  }
  const lines = Array.isArray(output.traceback) ? output.traceback : [];
  return !(lines.length === 1 && plain(lines[0]).startsWith(`${output.ename}: ${output.evalue}`));
}

function isError(output: Output): boolean {
  return output.output_type === 'error';
}

function tracebackText(output: Output): string {
  const lines = Array.isArray(output.traceback) ? output.traceback.map(plain) : [];
  return lines.length ? lines.join('\n') : `${output.ename}: ${output.evalue}`;
}

function streamText(output: Output): string {
  return output.output_type === 'stream' ? plain(joined(output.text)) : '';
}

function joined(text: unknown): string {
  return Array.isArray(text) ? text.join('') : typeof text === 'string' ? text : '';
}

function plain(text: unknown): string {
  return String(text).replace(ANSI, '');
}

/** The end says how it came out. */
function cut(text: string): string {
  return text.length > LONGEST ? text.slice(text.length - LONGEST) : text;
}
