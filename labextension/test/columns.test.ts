import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => {
  (globalThis as any).DragEvent ??= class extends MouseEvent {}; // jsdom has none, and Lumino's widgets want one
});

import { COLUMNS_TYPE, ColumnsRenderer } from '../src/columns';
import { NotingHost } from './pages';

function renderer() {
  const host = new NotingHost();
  host.drawStatic = async model => {
    const node = document.createElement('div');
    node.innerHTML = model.data['text/html'];
    return node;
  };
  const made = new ColumnsRenderer(host);
  const render = (json: unknown, html = '<p>one</p><pre><code>x = <u>1</u>\n</code></pre>') =>
    made.renderModel({ data: { [COLUMNS_TYPE]: json, 'text/html': html }, trusted: true } as any);
  const button = (label: string) => made.node.querySelector<HTMLButtonElement>(`[aria-label="${label}"]`)!;
  return { host, made, render, button, line: () => made.node.querySelector<HTMLElement>('.llm-Status')! };
}

const RUNNING = { version: 1, running: true, columns: [] };

describe('answers side by side', () => {
  it('can be stopped while they are written, and tell the seconds', async () => {
    vi.useFakeTimers();
    const { host, made, render, button, line } = renderer();
    await render(RUNNING);
    expect(line().hidden).toBe(false);
    expect(line().textContent).toContain('Answering');
    vi.advanceTimersByTime(3000);
    await render(RUNNING, '<p>one two</p>');
    expect(line().textContent).toContain('3 s');
    expect(made.node.textContent).toContain('one two');
    button('Stop these answers').click();
    expect(host.noted).toContain('interrupt');
    await render({ version: 1, columns: [] });
    expect(line().hidden).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  it('have no Stop button where nothing runs any more', async () => {
    const { host, render, line } = renderer();
    host.busy = false;
    await render(RUNNING);
    expect(line().hidden).toBe(true);
  });

  it('have buttons on their code when they are complete', async () => {
    const { host, render, button } = renderer();
    await render(RUNNING);
    expect(button('Copy this code')).toBeNull();
    await render({ version: 1, columns: [] });
    button('Copy this code').click();
    button('Insert this code as a new cell below').click();
    expect(host.noted).toEqual(['copy x = 1\n', 'insert x = 1\n']);
  });

  it('show the latest drawing, whichever is ready first', async () => {
    const { host, made, render } = renderer();
    const waiting: (() => void)[] = [];
    const draw = host.drawStatic;
    host.drawStatic = async model => {
      await new Promise<void>(done => waiting.push(done));
      return draw(model);
    };
    const drawings = [render(RUNNING, 'old'), render({ version: 1, columns: [] }, 'new')];
    waiting.reverse().forEach(done => done());
    await Promise.all(drawings);
    expect(made.node.textContent).toContain('new');
    expect(made.node.textContent).not.toContain('old');
  });
});
