import { readFileSync } from 'node:fs';
import type { Context } from '../context.ts';

export async function version(context: Context): Promise<number | undefined> {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  const versions = {
    cde: (JSON.parse(text) as { version: string }).version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
  };
  if (context.out.json) context.out.printJson(versions);
  else context.out.fields(Object.entries(versions));
  return undefined;
}
