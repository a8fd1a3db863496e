#!/usr/bin/env node
// The `cde` command. It imports only what is needed, because editors and scripts run `cde --version` often and every ssh
// connection starts this file.
import { readFileSync } from 'node:fs';

const root = new URL('./', import.meta.url);
const [first, ...rest] = process.argv.slice(2);

if ((first === '--version' || first === '-V') && rest.length === 0) {
  const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  process.stdout.write(`${version}\n`);
} else if (Number.parseInt(process.versions.node, 10) < 24) {
  await (await import('./old-node.mjs')).runOnPackagedNode(process.argv.slice(1));
} else {
  const { cacheCompiledCode } = await import('./compile-cache.mjs');
  cacheCompiledCode();
  await import('./main.ts');
}
