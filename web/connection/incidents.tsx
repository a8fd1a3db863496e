import type { Incident } from '@cde/api/diagnosis.ts';
import { moment } from '../ui/format.ts';
import type { Range } from './queries.ts';

const endOf = ({ endedAt }: Incident, range: Range) => (endedAt === null ? range.to : Date.parse(endedAt));
const isSlow = ({ kind }: Incident) => kind === 'slow';

/** The incidents as marks in a strip above the chart. The sentence appears on hover and focus, and in the list below. */
export function IncidentMarks({
  incidents,
  range,
  opened,
  onOpen,
}: {
  incidents: Incident[];
  range: Range;
  opened: string | null;
  onOpen: (id: string | null) => void;
}) {
  const share = (at: number) =>
    Math.min(100, Math.max(0, ((at - range.from) / (range.to - range.from)) * 100));
  const shown = incidents.find(({ id }) => id === opened);
  return (
    <>
      <div className="strip-row">
        <span className="strip-name" aria-hidden="true">
          Incidents
        </span>
        <div className="strip">
          {incidents.map((incident) => {
            const [left, right] = [share(Date.parse(incident.at)), share(endOf(incident, range))];
            return (
              <button
                key={incident.id}
                type="button"
                className={isSlow(incident) ? 'mark slow' : 'mark'}
                style={{ left: `min(${left}%, 100% - 8px)`, width: `${right - left}%` }}
                aria-label={`${moment(incident.at)}: ${incident.summary}`}
                aria-expanded={incident.id === opened}
                onMouseEnter={() => onOpen(incident.id)}
                onFocus={() => onOpen(incident.id)}
                onClick={() => {
                  onOpen(incident.id);
                  document.getElementById(incident.id)?.scrollIntoView({ block: 'nearest' });
                }}
              />
            );
          })}
        </div>
      </div>
      <p className="incident-sentence" aria-live="polite">
        {shown ? (
          <>
            <time dateTime={shown.at}>{moment(shown.at)}</time> {shown.summary}
          </>
        ) : incidents.length > 0 ? (
          <span className="muted">Point at a mark to see what happened.</span>
        ) : (
          <span className="muted">No incidents in this time.</span>
        )}
      </p>
    </>
  );
}

/** What went wrong, the newest first, with evidence and advice. */
export function IncidentList({
  incidents,
  isPending,
  opened,
}: {
  incidents: Incident[];
  isPending: boolean;
  opened: string | null;
}) {
  return (
    <section className="panel" aria-labelledby="incidents-title">
      <header>
        <h2 id="incidents-title">Incidents</h2>
      </header>
      <div className="body">
        {incidents.length === 0 ? (
          <p className="muted">
            {isPending
              ? 'Loading…'
              : 'Nothing went wrong in this time. Interruptions and slow spells appear here with their cause.'}
          </p>
        ) : (
          <ol className="incident-list">
            {[...incidents].reverse().map((incident) => (
              <li key={incident.id} id={incident.id} aria-current={incident.id === opened || undefined}>
                <p>
                  <time dateTime={incident.at}>{moment(incident.at)}</time>{' '}
                  <span className={isSlow(incident) ? 'chip warn' : 'chip bad'}>{incident.cause}</span>
                  {incident.endedAt === null && <span className="chip busy">continues</span>}
                </p>
                <p>{incident.summary}</p>
                {[...incident.evidence, ...incident.ruledOut].map((text) => (
                  <p key={text} className="hint">
                    {text}
                  </p>
                ))}
                {incident.advice && (
                  <p className="incident-advice">
                    <Words text={incident.advice} />
                  </p>
                )}
              </li>
            ))}
          </ol>
        )}
      </div>
    </section>
  );
}

/** Commands are between backticks. */
const Words = ({ text }: { text: string }) =>
  // biome-ignore lint/suspicious/noArrayIndexKey: the parts of a text do not move.
  text.split('`').map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part));
