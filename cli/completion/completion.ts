import type { Tree } from '../command/command.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { usage } from '../failure/failure.ts';
import { bashScript } from './bash.ts';
import { fishScript } from './fish.ts';
import { makeNodes, type Node } from './nodes.ts';
import { zshScript } from './zsh.ts';

const scripts: Record<string, (nodes: Node[]) => string> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export async function completion(_context: Context, input: { shell: string }, tree: Tree): Promise<Result> {
  const script = Object.hasOwn(scripts, input.shell) ? scripts[input.shell] : undefined;
  if (!script)
    throw usage(`There is no completion for ${JSON.stringify(input.shell)}.`, 'Choose bash, zsh or fish.');
  const text = script(makeNodes(tree));
  return result({ shell: input.shell, script: text }, () => [line(text)]);
}
