import { defineConfig } from 'vitest/config';

// JupyterLab's packages import pictures and styles, which only a bundler reads.
const server = { deps: { inline: [/@jupyter/] } };

export default defineConfig({
  test: { environment: 'jsdom', include: ['test/**/*.test.ts'], server, testTimeout: 60_000 }
});
