import type { Completes } from '../command/command.ts';
import { type Node, valueOptions } from './nodes.ts';

/** A word that bash does not expand or split. */
const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const lines = (words: readonly string[]) => `words=${quote(words.join('\n'))}`;

/** A command that sets the candidates: our own words, or names from the server or a workspace. */
function offer(completes: Completes | undefined): string {
  if (completes === undefined) return ':';
  if (completes === 'files') return 'files=1';
  if (completes === 'operands') return 'operands=1';
  if (typeof completes === 'string') return `_cde_ask ${completes}`;
  return lines(completes);
}

/**
 * The completion script for bash 4 and newer, and for macOS' 3.2. Untrusted words are only read line by line, compared,
 * and quoted, because `compgen -W` would run commands in them.
 */
export function bashScript(nodes: Node[]): string {
  const nouns = nodes.filter((node) => node.name !== '' && node.verbs.length > 0).map((node) => node.name);
  const cases = nodes.map((node) => {
    if (node.verbs.length > 0)
      return `    ${quote(node.name)}) ${lines(node.verbs.map(([verb]) => verb))} ;;`;
    const valued = node.options.filter((option) => option.takesValue);
    const values = node.values.map((value, at) =>
      at === node.values.length - 1 ? `        *) ${offer(value)} ;;` : `        ${at}) ${offer(value)} ;;`,
    );
    return [
      `    ${quote(node.name)})`,
      `      options=${quote(node.options.flatMap((option) => option.flags).join('\n'))}`,
      `      valued=${quote(valued.flatMap((option) => option.flags).join(' '))}`,
      '      case "$previous" in',
      ...valued.map((option) => `        ${option.flags.join('|')}) options=; ${offer(option.completes)} ;;`),
      '        *) _cde_count; case $count in',
      ...(values.length > 0 ? values : ['        *) : ;;']),
      '        esac ;;',
      '      esac ;;',
    ].join('\n');
  });
  return `# bash completion for cde. In ~/.bashrc: source <(cde completion bash)
_cde_split() {
  # bash splits WORKSPACE:PATH and --option=VALUE into three words; this joins them again.
  local at token gap before='' rest=\${COMP_LINE-}
  line=()
  for ((at = 0; at <= COMP_CWORD; at++)); do
    token=\${COMP_WORDS[at]-}
    gap=1
    if [[ -n \${COMP_LINE-} ]]; then
      [[ $rest == [[:space:]]* || -z $rest ]] || gap=0
      rest=\${rest#"\${rest%%[![:space:]]*}"}
      rest=\${rest#"$token"}
    elif [[ $token == [:=]* || $before == *[:=] ]]; then
      gap=0
    fi
    if ((gap || at == 0)); then line+=("$token"); else line[\${#line[@]} - 1]+=$token; fi
    before=$token
  done
}

_cde_count() {
  # How many arguments stand before the cursor, options and their values aside.
  count=0
  local at word
  for ((at = start; at < \${#line[@]} - 1; at++)); do
    word=\${line[at]}
    case "$word" in
      -*) case " $valued " in *" $word "*) at=$((at + 1)) ;; esac ;;
      *) count=$((count + 1)) ;;
    esac
  done
}

_cde_ask() {
  # Names from the server or a workspace, one to a line. They are data: nothing here expands them.
  words=$("\${COMP_WORDS[0]}" completion-words "$@" 2>/dev/null </dev/null)
}

_cde_offer() {
  # Offers those lines of $1 that begin with what was typed, as words that the shell takes as they are.
  local word typed=$current
  typed=\${typed//\\\\/}
  while IFS= read -r word; do
    [[ -n $word && $word == "$typed"* ]] || continue
    if [[ $word == *[!A-Za-z0-9_./:@%+,=-]* ]]; then
      case $word in
        '~/'*) printf -v word '%q' "\${word:2}"; word='~/'$word ;;
        *) printf -v word '%q' "$word" ;;
      esac
    fi
    # What bash replaces begins after the last colon.
    [[ $current == *:* && \${COMP_WORDBREAKS-:} == *:* ]] && word=\${word#"\${current%"\${current##*:}"}"}
    COMPREPLY+=("$word")
  done <<< "$1"
}

_cde_files() {
  local file found=''
  while IFS= read -r file; do
    # A tilde of the person's own is theirs to expand.
    if [[ -d $file || -d \${file/#\\~/$HOME} ]]; then found+=$file/$'\\n'; else found+=$file$'\\n'; fi
  done < <(compgen -f -- "\${current//\\\\/}")
  _cde_offer "$found"
}

_cde_operands() {
  compopt -o nospace 2>/dev/null
  if [[ $current == [A-Za-z0-9]*:* && \${current%%:*} != *[!A-Za-z0-9/-]* ]]; then
    _cde_ask paths "\${current//\\\\/}"
    _cde_offer "$words"
    return
  fi
  _cde_files
  _cde_ask connectable
  [[ -n $words ]] && _cde_offer "\${words//$'\\n'/:$'\\n'}:"
}

_cde() {
  local -a line
  _cde_split
  local last=$((\${#line[@]} - 1))
  local current=\${line[last]} previous=\${line[last > 0 ? last - 1 : 0]}
  local command='' words='' options='' valued='' files='' operands='' count=0 start=1 word at
  COMPREPLY=()
  for ((at = 1; at < last; at++)); do
    word=\${line[at]}
    # After -- everything belongs to a program in the workspace.
    [[ $word == -- ]] && return
    if [[ -z $command ]]; then
      # An option before the command, and its value.
      case $word in ${valueOptions.join('|')}) at=$((at + 1)); continue ;; esac
    fi
    [[ $word == -* || -n $command && ' ${nouns.join(' ')} ' != *" $command "* ]] && continue
    command=\${command:+$command }$word
    start=$((at + 1))
  done
  case "$current" in --*=*) previous=\${current%%=*} current=\${current#*=} ;; esac
  case "$command" in
${cases.join('\n')}
  esac
  if [[ $current == -* ]]; then _cde_offer "$options"
  elif [[ -n $operands ]]; then _cde_operands
  elif [[ -n $files ]]; then
    compopt -o nospace 2>/dev/null
    _cde_files
  else _cde_offer "$words"; fi
}

complete -F _cde cde`;
}
