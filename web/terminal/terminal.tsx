import '@xterm/xterm/css/xterm.css';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal as Xterm } from '@xterm/xterm';
import { useEffect, useRef } from 'react';
import { withSheets } from './document.ts';
import { type End, openTerminal, type TerminalSession } from './session.ts';
import { onThemeChange, theme } from './theme.ts';
import type { Way } from './ways.ts';

const scrollbackLines = 10_000;
// A dragged window edge makes hundreds of sizes; the shell redraws for each it is told.
const resizePauseMs = 60;

interface Props {
  /** The workspace's id, or `owner~name`. */
  workspace: string;
  /** By this name the shell is found again, from here and from elsewhere. */
  name: string;
  /** A new number opens a new session with it. */
  attempt: number;
  screenReader: boolean;
  /** Over which satellite, or the server. */
  onWay: (way: Way) => void;
  onOpen: () => void;
  /** It shows something: the shell is there. */
  onShown: () => void;
  onEnd: (end: End) => void;
}

/** The terminal itself: fills its parent, fits its columns to it. */
export function Terminal({ workspace, name, attempt, screenReader, onWay, onOpen, onShown, onEnd }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const terminal = useRef<{ xterm: Xterm; session: TerminalSession | null }>(null);
  const handlers = useRef({ onWay, onOpen, onShown, onEnd });
  handlers.current = { onWay, onOpen, onShown, onEnd };
  // A satellite has failed: for as long as this page is open the server is as good.
  const fellBack = useRef(false);

  useEffect(() => {
    const element = box.current!;
    const xterm = new Xterm({
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'),
      fontSize: 13,
      scrollback: scrollbackLines,
      theme: theme(),
      // Programs choose colours for a dark screen or a light one without knowing which it is.
      minimumContrastRatio: 4.5,
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      macOptionIsMeta: true,
    });
    const fit = new FitAddon();
    xterm.loadAddon(fit);
    withSheets(() => xterm.open(element));
    fit.fit();
    const held: { xterm: Xterm; session: TerminalSession | null } = { xterm, session: null };
    terminal.current = held;

    const encoder = new TextEncoder();
    xterm.onData((text) => held.session?.send(encoder.encode(text)));
    xterm.onBinary((text) =>
      held.session?.send(Uint8Array.from(text, (character) => character.charCodeAt(0))),
    );
    let timer: ReturnType<typeof setTimeout>;
    xterm.onResize(({ cols, rows }) => {
      clearTimeout(timer);
      timer = setTimeout(() => held.session?.resize(cols, rows), resizePauseMs);
    });
    const observer = new ResizeObserver(() => fit.fit());
    observer.observe(element);
    const unwatch = onThemeChange(() => {
      xterm.options.theme = theme();
    });
    xterm.focus();
    return () => {
      clearTimeout(timer);
      unwatch();
      observer.disconnect();
      xterm.dispose();
      terminal.current = null;
    };
  }, []);

  useEffect(() => {
    if (terminal.current) terminal.current.xterm.options.screenReaderMode = screenReader;
  }, [screenReader]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: each attempt opens a new session
  useEffect(() => {
    const held = terminal.current;
    if (!held) return;
    const session = openTerminal({
      workspace,
      name,
      size: () => ({ cols: held.xterm.cols, rows: held.xterm.rows }),
      serverOnly: fellBack.current,
      onWay(way, again) {
        fellBack.current ||= again;
        handlers.current.onWay(way);
      },
      onOpen: () => {
        // The size may have changed while it opened.
        session.resize(held.xterm.cols, held.xterm.rows);
        handlers.current.onOpen();
      },
      onBytes: (bytes) => {
        held.xterm.write(bytes);
        handlers.current.onShown();
      },
      onEnd: (end) => {
        // Out of full-screen programs and hidden cursors, and on a line of its own.
        held.xterm.write('\x1b[?1049l\x1b[?25h\x1b[0m\r\n');
        handlers.current.onEnd(end);
      },
    });
    held.session = session;
    held.xterm.focus();
    return () => {
      session.close();
      held.session = null;
    };
  }, [workspace, name, attempt]);

  return <div className="terminal-box" ref={box} />;
}
