import type { Completes } from '../command/command.ts';
import { type Node, valueOptions } from './nodes.ts';

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
/** Colons and brackets are separators in _arguments and _describe. */
const plain = (text: string) => text.replaceAll(/[[\]]/g, '').replaceAll(':', '\\:');

function action(completes: Completes | undefined): string {
  if (completes === undefined) return ' ';
  if (completes === 'files') return '_files';
  // A leading space keeps _arguments from inserting its own words.
  if (completes === 'operands') return ' _cde_operands';
  if (typeof completes === 'string') return ` _cde_names ${completes}`;
  return `(${completes.join(' ')})`;
}

/** The completion script for zsh 5. */
export function zshScript(nodes: Node[]): string {
  const nouns = nodes.filter((node) => node.name !== '' && node.verbs.length > 0).map((node) => node.name);
  const cases = nodes.map((node) => {
    if (node.verbs.length > 0) {
      const verbs = node.verbs.map(([verb, summary]) => quote(`${verb}:${plain(summary)}`)).join(' ');
      return `    ${quote(node.name)}) local -a verbs=(${verbs}); _describe command verbs ;;`;
    }
    const options = node.options.flatMap((option) =>
      option.flags.map((flag) =>
        quote(
          `*${flag}[${plain(option.help)}]${option.takesValue ? `:${flag.replace(/^-+/, '')}:${action(option.completes)}` : ''}`,
        ),
      ),
    );
    const values = node.values.map((value, at) =>
      quote(at === node.values.length - 1 ? `*:value:${action(value)}` : `${at + 1}:value:${action(value)}`),
    );
    return `    ${quote(node.name)}) _arguments ${[...options, ...values].join(' ')} ;;`;
  });
  return `#compdef cde
# zsh completion for cde. In ~/.zshrc, after compinit: source <(cde completion zsh)
_cde_names() {
  # compadd quotes what it inserts, and expands none of it.
  local -a names=(\${(f)"$(cde completion-words $1 2>/dev/null </dev/null)"})
  compadd -a names
}

_cde_operands() {
  # WORKSPACE: or a path in it, or a file of this machine.
  local current=\${(Q)PREFIX}
  local -a names
  if [[ $current == [A-Za-z0-9]*:* && \${current%%:*} != *[^A-Za-z0-9/-]* ]]; then
    names=(\${(f)"$(cde completion-words paths $current 2>/dev/null </dev/null)"})
    compadd -S '' -a names
  else
    _files
    names=(\${(f)"$(cde completion-words connectable 2>/dev/null </dev/null)"})
    compadd -S ':' -a names
  fi
}

_cde() {
  local command='' word
  integer at start=1
  for ((at = 2; at < CURRENT; at++)); do
    word=$words[at]
    # An option before the command, and its value.
    if [[ -z $command && $word == (${valueOptions.join('|')}) ]]; then
      ((at++))
      continue
    fi
    [[ $word == -* ]] && continue
    [[ -n $command && ' ${nouns.join(' ')} ' != *" $command "* ]] && break
    command=\${command:+$command }$word
    start=$at
  done
  # _arguments counts from the command's own last word.
  if ((start > 1)); then
    words=("\${(@)words[start,-1]}")
    ((CURRENT -= start - 1))
  fi
  case $command in
${cases.join('\n')}
  esac
}

compdef _cde cde`;
}
