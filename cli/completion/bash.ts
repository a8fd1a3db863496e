import type { Completes } from '../command.ts';
import type { Node } from './nodes.ts';

/** A shell word that stands for what may be offered: words, the output of a question to the server, or files. */
function offer(completes: Completes | undefined): string {
  if (completes === undefined) return ':';
  if (completes === 'files') return 'files=1';
  if (completes === 'workspaces' || completes === 'templates')
    return `words=$("\${COMP_WORDS[0]}" completion-words ${completes} 2>/dev/null)`;
  return `words='${completes.join(' ')}'`;
}

/** The completion script for bash 4 and newer, and for the 3.2 of macOS. */
export function bashScript(nodes: Node[]): string {
  const nouns = nodes.filter((node) => node.name !== '' && node.verbs.length > 0).map((node) => node.name);
  const cases = nodes.map((node) => {
    if (node.verbs.length > 0)
      return `    '${node.name}') words='${node.verbs.map(([verb]) => verb).join(' ')}' ;;`;
    const valued = node.options.filter((option) => option.takesValue);
    const values = node.values.map((value, at) =>
      at === node.values.length - 1 ? `        *) ${offer(value)} ;;` : `        ${at}) ${offer(value)} ;;`,
    );
    return [
      `    '${node.name}')`,
      `      options='${node.options.flatMap((option) => option.flags).join(' ')}'`,
      `      valued='${valued.flatMap((option) => option.flags).join(' ')}'`,
      '      case "$previous" in',
      ...valued.map((option) => `        ${option.flags.join('|')}) options=; ${offer(option.completes)} ;;`),
      '        *) _cde_count; case $count in',
      ...(values.length > 0 ? values : ['        *) : ;;']),
      '        esac ;;',
      '      esac ;;',
    ].join('\n');
  });
  return `# bash completion for cde. In ~/.bashrc: source <(cde completion bash)
_cde_count() {
  # How many arguments stand before the cursor, options and their values aside.
  count=0
  local at word
  for ((at = start; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    case "$word" in
      -*) case " $valued " in *" $word "*) at=$((at + 1)) ;; esac ;;
      *) count=$((count + 1)) ;;
    esac
  done
}

_cde() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]}
  local command='' words='' options='' valued='' files='' count=0 start=1 word at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    # After -- everything belongs to a program in the workspace.
    [[ $word == -- ]] && return
    [[ $word == -* || -n $command && ' ${nouns.join(' ')} ' != *" $command "* ]] && continue
    command=\${command:+$command }$word
    start=$((at + 1))
  done
  case "$command" in
${cases.join('\n')}
  esac
  if [[ $current == -* ]]; then
    words=$options
  elif [[ -n $files ]]; then
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$current"))
    compopt -o filenames 2>/dev/null
    return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}

complete -F _cde cde`;
}
