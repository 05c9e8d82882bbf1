/** What a cell says of being a tool: in its metadata, in its first line, in its tags. */

import type { Parser } from '@lezer/common';
import type { TranslationBundle } from '@jupyterlab/translation';

/** Where a notebook's and a cell's metadata of ours lie. */
export const KEY = 'llm_magics';

export type Approve = 'ask' | 'auto' | 'deny';

export interface ICellTool {
  name: string;
  description: string;
  /** As in a Python signature, e.g. `city: str, days: int = 3`. */
  parameters: string;
  /** Whether a call asks first; cells ask if nothing is said. */
  approve: Approve;
}

/** e.g. `%%tool plot(city: str)` and `# %tool plot(city: str)`: what leads, the name, and what follows */
const HEADER = /^\s*(%%tool|#\s*%tool)[ \t]+([A-Za-z_]\w*)[ \t]*([^\n]*)/;

/** e.g. ` --approve auto` */
const APPROVE = /[ \t]*--approve(?:[ \t]+|=)(\w+)/;

/** The name under which the cell is a tool, whichever way it says so; empty where it is none. */
export function toolName(source: string, metadata: Record<string, any>): string {
  const tag = (Array.isArray(metadata.tags) ? metadata.tags : []).find(t => /^tool(:\w+)?$/.test(String(t)));
  return (
    HEADER.exec(source)?.[2] ?? storedTool(metadata)?.name ?? (tag ? String(tag).split(':')[1] || 'tool' : '')
  );
}

/** The tool that a cell is by its own first line, or else by what the form has written into its metadata. */
export function toolOf(source: string, metadata: Record<string, any>): ICellTool | null {
  return headerTool(source) ?? storedTool(metadata);
}

/** The tool that the form has written into a cell's metadata. */
export function storedTool(metadata: Record<string, any>): ICellTool | null {
  const tool = metadata[KEY]?.tool;
  return typeof tool?.name === 'string'
    ? {
        name: tool.name,
        description: String(tool.description ?? ''),
        parameters: String(tool.parameters ?? ''),
        approve: readApprove(tool.approve)
      }
    : null;
}

/** The tool that a cell's first line makes it, described by the comment below that line. */
export function headerTool(source: string): ICellTool | null {
  const found = HEADER.exec(source);
  if (!found) {
    return null;
  }
  const [parameters, rest] = cutParameters(found[3]);
  const comment = commentBelow(source.slice(found[0].length));
  return {
    name: found[2],
    description: comment.replace(/^[ \t]*#+[ \t]?/gm, '').trim(),
    parameters: parameters ?? '',
    approve: readApprove(APPROVE.exec(rest)?.[1])
  };
}

/** The source whose first line and comment say what the form says; an empty name takes the line away. */
export function withHeader(source: string, tool: ICellTool): string {
  const found = HEADER.exec(source)!;
  const was = headerTool(source)!;
  const [, rest] = cutParameters(found[3]);
  let below = source.slice(found[0].length);
  if (tool.description !== was.description) {
    const comment = tool.description
      .split('\n')
      .map(line => `# ${line}`.trimEnd())
      .join('\n');
    below = `\n${tool.description ? `${comment}\n` : ''}${below.slice(commentBelow(below).length).replace(/^\n/, '')}`;
  }
  if (!tool.name) {
    return below.replace(/^\n/, '');
  }
  const options =
    was.approve === tool.approve
      ? rest
      : rest.replace(APPROVE, '') + (tool.approve === 'ask' ? '' : ` --approve ${tool.approve}`);
  return `${found[1]} ${tool.name}(${tool.parameters})${options && !/^[ \t]/.test(options) ? ' ' : ''}${options}${below}`;
}

/** What is wrong with a tool's name; empty where nothing is. */
export function nameError(name: string, trans: TranslationBundle): string {
  return name === '' || /^[A-Za-z_]\w*$/.test(name)
    ? ''
    : trans.__('%1 is not a valid name for a tool: use letters, digits and _.', name);
}

/** What is wrong with a list of parameters, read by a parser of Python; empty where nothing is. */
export function parametersError(parameters: string, python: Parser, trans: TranslationBundle): string {
  const head = 'def tool(';
  const tree = python.parse(`${head}${parameters}): pass`);
  let wrong = false;
  tree.iterate({ enter: ({ type }) => void (wrong ||= type.isError) });
  const list = tree.topNode.firstChild?.getChild('ParamList');
  return !wrong && list?.to === head.length + parameters.length + 1
    ? ''
    : trans.__('These are not parameters of Python. Write them like %1.', 'city: str, days: int = 3');
}

/** Cut `(city: str) -> dict --timeout 5` into `city: str` and what follows; null if there is no list. */
function cutParameters(text: string): [string | null, string] {
  if (!text.startsWith('(')) {
    return [null, text];
  }
  let [depth, quote] = [0, ''];
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (quote) {
      at += letter === '\\' ? 1 : 0;
      quote = letter === quote ? '' : quote;
    } else if (letter === '"' || letter === "'") {
      quote = letter;
    } else if ('([{'.includes(letter)) {
      depth++;
    } else if (')]}'.includes(letter) && --depth === 0) {
      return [text.slice(1, at).trim(), text.slice(at + 1)];
    }
  }
  return [text.slice(1).trim(), ''];
}

/** The comment lines right below a first line, with the line ends in front of them. */
function commentBelow(below: string): string {
  return /^(?:\n[ \t]*#[^\n]*)*/.exec(below)![0];
}

function readApprove(word: unknown): Approve {
  return word === 'auto' || word === 'deny' ? word : 'ask';
}
