/** What a cell says of being a tool: in its metadata, in its first line, in its tags. */

import type { TranslationBundle } from '@jupyterlab/translation';

/** Where a notebook's and a cell's metadata of ours lie. */
export const KEY = 'llm_magics';

export interface ICellTool {
  name: string;
  description: string;
  /** As in a Python signature, e.g. `city: str, days: int = 3`. */
  parameters: string;
}

/** e.g. `%%tool plot(city: str)` and `# %tool plot(city: str)` */
const HEADER = /^\s*(?:%%tool|#\s*%tool)\s+([A-Za-z_]\w*)/;

/** The name under which the cell is a tool, whichever way it says so; empty where it is none. */
export function toolName(source: string, metadata: Record<string, any>): string {
  const tag = (Array.isArray(metadata.tags) ? metadata.tags : []).find(t => /^tool(:\w+)?$/.test(String(t)));
  return (
    HEADER.exec(source)?.[1] ?? storedTool(metadata)?.name ?? (tag ? String(tag).split(':')[1] || 'tool' : '')
  );
}

/** The tool that the form has written into a cell's metadata. */
export function storedTool(metadata: Record<string, any>): ICellTool | null {
  const tool = metadata[KEY]?.tool;
  return typeof tool?.name === 'string'
    ? {
        name: tool.name,
        description: String(tool.description ?? ''),
        parameters: String(tool.parameters ?? '')
      }
    : null;
}

/** What is wrong with a tool's name; empty where nothing is. */
export function nameError(name: string, trans: TranslationBundle): string {
  return name === '' || /^[A-Za-z_]\w*$/.test(name)
    ? ''
    : trans.__('%1 is no name for a tool: use letters, digits and _.', name);
}
