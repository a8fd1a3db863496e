import type { Completes } from '../command/command.ts';
import { type Node, valueOptions } from './nodes.ts';

const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** fish quotes the output of a command in `-a` and does not expand it. */
function offer(completes: Completes | undefined): string {
  if (completes === 'files') return '-F';
  if (completes === 'operands') return `-F -a '(__cde_operands)'`;
  if (completes === undefined) return '-f';
  if (typeof completes === 'string') return `-f -a '(cde completion-words ${completes} 2>/dev/null)'`;
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
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        # An option before the command, and its value.
        if not set -q command[1]; and contains -- $word ${valueOptions.join(' ')}
            set skip 1
            continue
        end
        string match -q -- '-*' $word; and continue
        if set -q command[1]; and not contains -- "$command" ${nouns.join(' ')}
            break
        end
        set -a command $word
    end
    test "$command" = "$argv[1]"
end

function __cde_operands
    # WORKSPACE: or a path in it; files of this machine come from fish itself.
    set -l current (commandline -ct)
    if string match -qr '^[A-Za-z0-9][A-Za-z0-9/-]*:' -- $current
        cde completion-words paths (string unescape -- $current) 2>/dev/null
    else
        cde completion-words connectable 2>/dev/null | string replace -r '$' ':'
    end
end

complete -c cde -f
${lines.join('\n')}`;
}
