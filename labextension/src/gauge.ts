/** What a kernel says of its loaded models, and how one reads in a line. */

import type { TranslationBundle } from '@jupyterlab/translation';

export interface IModelGauge {
  name: string;
  current: boolean;
  description: string;
  context_size: number;
  context_used: number;
  tokens_per_second: number;
  /** Bytes by device, e.g. `{"host": 400000000, "CUDA0": 1500000000}`; all that is not "host" is a GPU. */
  memory: Record<string, number>;
}

/** A GPU, whoever uses it: bytes in use and in all, and percent busy lately (null where its driver does not tell). */
export interface IGpuGauge {
  name: string;
  used: number;
  total: number;
  busy: number | null;
}

/** e.g. `qwen · 812/4,096 · 43 tok/s · GPU 1.5 GB, 63 % busy · host 412 MB`: short, since the status bar is. */
export function cardText(model: IModelGauge, gpus: IGpuGauge[], trans: TranslationBundle): string {
  const { gpu, host } = memoryOf(model);
  return joined(
    model.name,
    model.context_size ? contextText(model) : '',
    model.tokens_per_second ? trans.__('%1 tok/s', model.tokens_per_second.toFixed(0)) : '',
    gpu ? [trans.__('GPU %1', bytesText(gpu, trans)), busyText(gpus, trans)].filter(Boolean).join(', ') : '',
    host ? trans.__('host %1', bytesText(host, trans)) : ''
  );
}

/** The same in full words, for a screen reader and as the card's tooltip. */
export function spokenText(model: IModelGauge, gpus: IGpuGauge[], trans: TranslationBundle): string {
  const used = (gpu: IGpuGauge) => trans.__('%1: %2 in use', gpu.name, usedText(gpu, trans));
  return joined(
    model.name,
    model.description,
    model.context_size
      ? trans.__('%1 of %2 tokens of context used', count(model.context_used), count(model.context_size))
      : '',
    model.tokens_per_second ? trans.__('%1 tokens per second', model.tokens_per_second.toFixed(1)) : '',
    ...Object.entries(model.memory).map(([device, bytes]) =>
      trans.__('%1 on %2', bytesText(bytes, trans), device === 'host' ? trans.__('host') : device)
    ),
    ...gpus.map(gpu => [used(gpu), busyText([gpu], trans)].filter(Boolean).join(', '))
  );
}

/** e.g. `40.0 GB of 141.0 GB` */
export function usedText(gpu: IGpuGauge, trans: TranslationBundle): string {
  return trans.__(
    '%1 of %2',
    bytesText(gpu.used, trans) || trans.__('%1 MB', 0),
    bytesText(gpu.total, trans)
  );
}

/** e.g. `63 % busy`, of the busiest one; nothing where no driver tells. */
export function busyText(gpus: IGpuGauge[], trans: TranslationBundle): string {
  const known = gpus.map(gpu => gpu.busy).filter(busy => busy !== null);
  return known.length ? trans.__('%1 %% busy', Math.max(...known)) : '';
}

/** e.g. `812/4,096` */
export function contextText(model: IModelGauge): string {
  return `${count(model.context_used)}/${count(model.context_size)}`;
}

/** Bytes in the host's memory, and in that of all GPUs together. */
export function memoryOf(model: IModelGauge): { host: number; gpu: number } {
  const { host = 0, ...devices } = model.memory;
  return { host, gpu: Object.values(devices).reduce((sum, bytes) => sum + bytes, 0) };
}

/** e.g. `1.5 GB`; nothing for no bytes. */
export function bytesText(bytes: number, trans: TranslationBundle): string {
  if (!bytes) {
    return '';
  }
  return bytes >= 1e9
    ? trans.__('%1 GB', (bytes / 1e9).toFixed(1))
    : trans.__('%1 MB', Math.round(bytes / 1e6));
}

/** A number as every view writes it, e.g. 16,384. */
export function count(n: number): string {
  return n.toLocaleString('en');
}

function joined(...parts: string[]): string {
  return parts.filter(Boolean).join(' · ');
}

/** Read what a kernel sent of its GPUs; what is missing or mistyped becomes empty. */
export function readGpus(data: unknown): IGpuGauge[] {
  return (Array.isArray(data) ? data : []).map(gpu => ({
    name: String(gpu?.name ?? ''),
    used: Number(gpu?.used) || 0,
    total: Number(gpu?.total) || 0,
    busy: typeof gpu?.busy === 'number' ? gpu.busy : null
  }));
}

/** Read what a kernel sent of a model; what is missing or mistyped becomes empty. */
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
