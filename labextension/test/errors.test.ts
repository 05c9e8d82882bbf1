import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => {
  (globalThis as any).DragEvent ??= class extends MouseEvent {}; // jsdom has none, and Lumino's widgets want it
});

import { ACTION_MIME_TYPE, ActionRenderer } from '../src/action';
import { offerFor, plainOutputs } from '../src/errors';
import { NotingHost } from './pages';

const error = (ename: string, evalue: string, ...traceback: string[]) => ({
  output_type: 'error',
  ename,
  evalue,
  traceback
});
const said = (text: string) => ({ output_type: 'stream', name: 'stderr', text });
const TRACEBACK = error('NameError', "name 'x' is not defined", '----', '\x1b[31mNameError\x1b[0m: name');
const SYNTAX = error(
  'SyntaxError',
  'invalid syntax',
  '  Cell In[1], line 1\n\x1b[31mSyntaxError\x1b[0m: bad'
);
const OURS = error('NoModelError', 'No model is loaded.', '\x1b[31mNoModelError\x1b[0m: No model is loaded.');

const EXISTS = (magic: string) => `(But magic \`${magic}\` exists, did you mean that instead?).\n`;

describe('below a cell', () => {
  it.each([
    ['x', [TRACEBACK], 'explain'],
    ['x', [said('working'), SYNTAX], 'explain'],
    ['x', [said('NameError: no, only said')], null],
    ['x', [error('KeyboardInterrupt', '', '----', 'KeyboardInterrupt: ')], null],
    ['session.ask("x")', [OURS], null],
    ['%%chat\nx', [OURS], null],
    ['%%chat\nx', [TRACEBACK], null],
    ['%%chat\nx', [said('UsageError: Cell magic `%%chat` not found.\n')], 'load'],
    ['%load_model x', [said('UsageError: Line magic function `%load_model` not found.\n')], 'load'],
    ['%%chat\nx', [{ ...said(''), text: ['UsageError: Cell magic `%%chat`', ' not found.'] }], 'load'],
    ['%%bigquery\nx', [said('UsageError: Cell magic `%%bigquery` not found.\n')], null],
    ['print()', [said('UsageError: Cell magic `%%chat` not found.\n')], null],
    ['%chat x', [said(`UsageError: Line magic function \`%chat\` not found ${EXISTS('%%chat')}`)], null],
    ['%%models\nx', [said(`UsageError: Cell magic \`%%models\` not found ${EXISTS('%models')}`)], null],
    ['x', [], null]
  ])('%j with %j there is the offer %s', (source, outputs, offer) => {
    expect(offerFor(source, outputs)).toBe(offer);
  });
});

it('What a cell gave reaches the kernel as plain text, its error apart', () => {
  const value = {
    output_type: 'execute_result',
    data: { 'text/plain': ['4', '2'], 'text/html': '<b>42</b>' }
  };
  expect(plainOutputs([said('a\x1b[1mb'), value, TRACEBACK])).toEqual({
    output: 'ab\n42',
    error: '----\nNameError: name'
  });
  expect(plainOutputs([error('E', 'why')]).error).toBe('E: why');
  expect(plainOutputs([])).toEqual({ output: '', error: '' });
});

describe("an error's action", () => {
  async function drawn(action: unknown): Promise<[ActionRenderer, NotingHost]> {
    const host = new NotingHost();
    const renderer = new ActionRenderer(host);
    await renderer.renderModel({ data: { [ACTION_MIME_TYPE]: action } } as any);
    return [renderer, host];
  }

  it('is a button that says what it runs', async () => {
    const [{ node }, host] = await drawn({ label: 'Load tiny', code: '%load_model tiny' });
    const button = node.querySelector('button')!;
    expect(button.textContent).toBe('Load tiny');
    expect(node.textContent).toContain('%load_model tiny');
    button.click();
    expect(host.noted).toEqual(['run above %load_model tiny']);
    expect(button.disabled).toBe(true);
  });

  it.each([
    [{ label: 'Load tiny', code: 'import os' }],
    [{ label: 'Load tiny', code: '%load_model tiny\nimport os' }],
    [{ label: 'Load tiny', code: '%system rm' }],
    [{ label: 'Load tiny', code: 3 }],
    [null],
    ['text']
  ])('in a file of somebody else has no button for %j', async action => {
    const [{ node }] = await drawn(action);
    expect(node.querySelector('button')).toBeNull();
  });
});
