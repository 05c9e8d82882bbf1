import { describe, expect, it, vi } from 'vitest';
import { LiveTurns } from '../src/live';
import { Preferences } from '../src/preferences';
import { TranscriptRenderer } from '../src/renderer';
import { MIME_TYPE } from '../src/transcript';
import { NotingHost, said, transcript } from './pages';

vi.hoisted(() => {
  (globalThis as any).DragEvent ??= class extends MouseEvent {}; // jsdom has none, and Lumino's widgets want one
});

function renderer() {
  const host = new NotingHost();
  const made = new TranscriptRenderer(host, new LiveTurns(), new Preferences());
  const render = (json: unknown) =>
    made.renderModel({ data: { [MIME_TYPE]: json, 'text/html': 'the static form' }, trusted: true } as any);
  return { host, made, render, text: () => made.node.innerText || made.node.textContent || '' };
}

const readable = { version: 1, ...transcript([said('the answer')]) };

describe('a transcript of a version that is not known', () => {
  it.each([{ version: 99, segments: [{ type: 'hologram' }] }, { version: '1' }, null, 'text'])(
    'shows its static form, and says why: %j',
    async json => {
      const { host, render, text } = renderer();
      await render(json);
      expect(host.noted).toContain('static');
      expect(text()).toContain('the static form');
      expect(text()).toContain('another version of llm_magics');
    }
  );

  it('gives way to one that is known, and the other way about', async () => {
    const { made, render, text } = renderer();
    await render({ version: 99 });
    await render(readable);
    expect(text()).toContain('the answer');
    expect(text()).not.toContain('another version');
    await render({ version: 99 });
    expect(made.node.querySelectorAll('.llm-Static')).toHaveLength(1);
    expect(made.node.querySelector<HTMLElement>('.llm-Transcript')!.hidden).toBe(true);
  });

  it('survives a change of the settings', async () => {
    const { made, render, text } = renderer();
    await render({ version: 99 });
    (made as any)._onLook();
    expect(text()).toContain('the static form');
    expect(made.node.querySelector<HTMLElement>('.llm-Transcript')!.hidden).toBe(true);
  });
});
