// The completion scripts of shells. Each asks penne, which answers from its option tables (answer.ts has the form).

/** A script, in which `@{` stands for what would begin a substitution here. */
function script(text: TemplateStringsArray): string {
  return text.raw[0]!.replaceAll("@{", "${");
}

const BASH = script`# bash completion for penne(1)
_penne() {
  local line=@{COMP_LINE:0:COMP_POINT} keep= breaks kind current answer word
  local -a words lines
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=@{words[@{#words[@]} - 1]}
  answer=$("@{COMP_WORDS[0]}" __complete "@{words[@]:1}" 2>/dev/null) || return
  mapfile -t lines <<<"$answer"
  kind=@{lines[0]}
  # What bash takes for words of their own, and leaves as it is.
  breaks=@{COMP_WORDBREAKS//[^=:]/}
  [[ -n $breaks ]] && keep=@{current%"@{current##*[$breaks]}"}
  for word in "@{lines[@]:1}"; do
    COMPREPLY+=("@{word%%$'\t'*}")
    COMPREPLY[-1]=@{COMPREPLY[-1]#"$keep"}
  done
  case $kind in
    open) compopt -o nospace ;;
    files | dirs)
      compopt -o filenames
      [[ $kind == dirs ]] && word=-d || word=-f
      mapfile -t -O "@{#COMPREPLY[@]}" COMPREPLY < <(compgen "$word" -- "@{current#"$keep"}")
      ;;
    commands)
      if [[ $current == */* ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
      else
        mapfile -t -O "@{#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$current")
      fi
      ;;
    command*)
      if declare -F _command_offset >/dev/null; then
        _command_offset "$((@{kind#command } + 1))"
      else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
      fi
      ;;
  esac
}
complete -F _penne penne
`;

const ZSH = script`#compdef penne
# zsh completion for penne(1)
_penne() {
  local -a lines found
  local kind line
  lines=("@{(@f)$("$words[1]" __complete "@{(@Q)words[2,CURRENT-1]}" "@{(Q)PREFIX}" 2>/dev/null)}")
  kind=$lines[1]
  shift lines
  for line in "$lines[@]"; do
    [[ -n $line ]] && found+=("@{@{line%%$'\t'*}//:/\\:}:@{line#*$'\t'}")
  done
  if (( $#found )); then
    if [[ $kind == open ]]; then
      _describe -t values value found -S ''
    else
      _describe -t values value found
    fi
  fi
  case $kind in
    files) compset -P '--*='; _files ;;
    dirs) compset -P '--*='; _files -/ ;;
    commands) _command_names -e ;;
    command*)
      shift "$((@{kind#command } + 1))" words
      (( CURRENT -= @{kind#command } + 1 ))
      _normal
      ;;
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _penne "$@"
else
  compdef _penne penne
fi
`;

const FISH = script`# fish completion for penne(1)
function __penne_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l lines ($program __complete $words "$current" 2>/dev/null)
    or return
    set -l kind $lines[1]
    set -e lines[1]
    for line in $lines
        echo $line
    end
    set -l keep (string match -r -- '^--[^=]*=' "$current")
    set -l value (string replace -r -- '^--[^=]*=' '' "$current")
    switch $kind
        case files
            for path in (__fish_complete_path "$value")
                echo "$keep$path"
            end
        case dirs
            for path in (__fish_complete_directories "$value")
                echo "$keep$path"
            end
        case commands
            __fish_complete_command
        case 'command *'
            set -l first (math (string replace 'command ' '' -- $kind) + 0)
            set -e words[1..$first]
            complete -C(string join ' ' -- (string escape -- $words) "$current")
    end
end
complete -c penne -f -k -a '(__penne_complete)'
`;

/** The script of each shell. */
export const SCRIPTS = { bash: BASH, zsh: ZSH, fish: FISH } as const;
