// Write the hash of the bundle's sources beside the bundle, so that a test can tell a stale one.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

const files = ['package.json', 'yarn.lock'];
for (const folder of ['schema', 'src', 'style']) {
  files.push(...readdirSync(folder).map(name => `${folder}/${name}`));
}
const hash = createHash('sha256');
for (const file of files.sort()) {
  hash.update(file + '\n');
  hash.update(readFileSync(file, 'utf8').replaceAll('\r\n', '\n'));
}
writeFileSync('../llm_magics/labextension/sources.sha256', hash.digest('hex') + '\n');
