/**
 * A tool's picture stands once in a saved cell, in its HTML: `{"image/png": {"html": 2}}` in the transcript beside it means the
 * picture numbered 2 there. `llm_magics/views/pictures.py` writes this.
 */

const PICTURE = /<img src="data:(image\/(?:png|jpeg));base64,([A-Za-z0-9+/=]+)"/g;

/** The JSON of a transcript with its pictures put back. What points nowhere, and what is no transcript, stays as it is. */
export function withPictures(transcript: unknown, html: unknown): unknown {
  const text = Array.isArray(html) ? html.join('') : html;
  const found = typeof text === 'string' ? [...text.matchAll(PICTURE)] : [];
  const segments = (transcript as any)?.segments;
  if (!found.length || !Array.isArray(segments)) {
    return transcript;
  }
  const picture = (kind: string, data: any) => {
    const match = typeof data?.html === 'number' ? found[data.html] : undefined;
    return match?.[1] === kind ? match[2] : data;
  };
  const output = (bundle: any) =>
    Object.fromEntries(Object.entries(bundle ?? {}).map(([kind, data]) => [kind, picture(kind, data)]));
  return {
    ...(transcript as object),
    segments: segments.map(segment =>
      Array.isArray(segment?.outputs) ? { ...segment, outputs: segment.outputs.map(output) } : segment
    )
  };
}
