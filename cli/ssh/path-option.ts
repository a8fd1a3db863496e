/** `--path` of the commands that open sessions. */
export const pathOption = {
  kind: 'text',
  value: 'KIND',
  help: 'How to reach the workspace: relay, direct-tcp, direct-udp, or auto, the best there is (default)',
  choices: ['auto', 'relay', 'direct-tcp', 'direct-udp'],
} as const;
