/** What a kernel says of its loaded models, and how one reads in a line. */

export interface IModelGauge {
  name: string;
  current: boolean;
  description: string;
  context_size: number;
  context_used: number;
  tokens_per_second: number;
  /** Bytes by device, e.g. `{"CPU": 400000000}`. */
  memory: Record<string, number>;
}

/** e.g. `qwen · context 812 of 4,096 · 43 tokens/s · CPU 412 MB` */
export function cardText(model: IModelGauge): string {
  const count = (n: number) => n.toLocaleString('en');
  return [
    model.name,
    model.context_size ? `context ${count(model.context_used)} of ${count(model.context_size)}` : '',
    model.tokens_per_second ? `${model.tokens_per_second.toFixed(0)} tokens/s` : '',
    ...Object.entries(model.memory).map(([device, bytes]) => `${device} ${bytesText(bytes)}`)
  ]
    .filter(Boolean)
    .join(' · ');
}

function bytesText(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

/** Read what a kernel sent; what is missing or mistyped becomes empty. */
export function readGauge(data: any): IModelGauge {
  const memory = Object.entries(data?.memory ?? {}).filter(([, bytes]) => typeof bytes === 'number');
  return {
    name: String(data?.name ?? ''),
    current: data?.current === true,
    description: String(data?.description ?? ''),
    context_size: Number(data?.context_size) || 0,
    context_used: Number(data?.context_used) || 0,
    tokens_per_second: Number(data?.tokens_per_second) || 0,
    memory: Object.fromEntries(memory) as Record<string, number>
  };
}
