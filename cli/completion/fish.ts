import type { Completes } from '../command.ts';
import type { Node } from './nodes.ts';

const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function offer(completes: Completes | undefined): string {
  if (completes === 'files') return '-F';
  if (completes === undefined) return '-f';
  if (completes === 'workspaces' || completes === 'templates')
    return `-f -a '(cde completion-words ${completes} 2>/dev/null)'`;
  return `-f -a ${quote(completes.join(' '))}`;
}

/** The completion script for fish 3 and newer. */
export function fishScript(nodes: Node[]): string {
  const nouns = nodes.filter((node) => node.name !== '' && node.verbs.length > 0).map((node) => node.name);
  const lines = nodes.flatMap((node) => {
    const when = `-n ${quote(`__cde_at ${quote(node.name)}`)}`;
    if (node.verbs.length > 0)
      return node.verbs.map(
        ([verb, summary]) => `complete -c cde ${when} -f -a ${verb} -d ${quote(summary)}`,
      );
    const options = node.options.map((option) => {
      const flags = option.flags
        .map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`))
        .join(' ');
      const value = option.takesValue ? ` -r ${offer(option.completes)}` : '';
      return `complete -c cde ${when} ${flags}${value} -d ${quote(option.help)}`;
    });
    const [first] = node.values;
    return [...options, `complete -c cde ${when} ${offer(first)}`];
  });
  return `# fish completion for cde: cde completion fish > ~/.config/fish/completions/cde.fish
function __cde_at
    # True when the command line so far names this command.
    set -l command
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and continue
        if set -q command[1]; and not contains -- "$command" ${nouns.join(' ')}
            break
        end
        set -a command $word
    end
    test "$command" = "$argv[1]"
end

complete -c cde -f
${lines.join('\n')}`;
}
