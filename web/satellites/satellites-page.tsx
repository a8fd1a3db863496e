import { drainSatellite, listSatellites, removeSatellite, type Satellite } from '@cde/api/satellites.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { call, newIdempotencyKey } from '../client.ts';
import { managesSatellites, useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { bytes } from '../ui/format.ts';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';
import { Menu } from '../ui/menu.tsx';
import { Ago } from '../ui/time.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';
import { AddSatellite } from './add-satellite.tsx';
import { WebDialog, webWords } from './web-dialog.tsx';
import '../workspaces/workspaces.css';

// There are no events for satellites. They report every 15 s, and a drain can finish sooner.
const askEveryMs = 5_000;

const looks: Record<Satellite['state'], [tone: string, word: string, meaning: string]> = {
  new: ['off', 'New', 'It has never connected. Start it with its token.'],
  online: ['good', 'Online', 'It accepts sessions.'],
  draining: ['busy', 'Draining', 'It accepts no new sessions and moves its sessions elsewhere.'],
  drained: ['warn', 'Drained', 'No sessions are left, so you can stop its machine.'],
  stopping: ['busy', 'Stopping', 'Its program is shutting down.'],
  away: ['bad', 'Unreachable', 'No report for 45 seconds. It may still serve sessions.'],
};

/** The relays in other regions. */
export function SatellitesPage() {
  useTitle('Satellites');
  const manages = managesSatellites(useMe().role);
  const client = useQueryClient();
  const [adding, setAdding] = useState(false);
  const [changing, setChanging] = useState<Satellite | null>(null);
  const [removing, setRemoving] = useState<Satellite | null>(null);
  const satellites = useQuery({
    queryKey: ['satellites'],
    queryFn: async ({ signal }) => (await call(listSatellites, { signal })).items,
    refetchInterval: askEveryMs,
  });
  const refresh = () => client.invalidateQueries({ queryKey: ['satellites'] });
  const drain = useMutation({
    mutationFn: ({ satellite, draining }: { satellite: Satellite; draining: boolean }) =>
      call(drainSatellite, {
        params: { satellite: satellite.id },
        body: { draining },
        idempotencyKey: newIdempotencyKey(),
      }),
    onSuccess: ({ name, draining }) => {
      sayDone(
        draining
          ? `${name} starts draining within 15 seconds.`
          : `${name} accepts sessions again within 15 seconds.`,
      );
      return refresh();
    },
    onError: (error, { satellite }) => sayFailed(`Could not change ${satellite.name}.`, error),
  });
  const addButton = manages && (
    <button type="button" className="button primary" onClick={() => setAdding(true)}>
      <Icon name="plus" /> Add a satellite
    </button>
  );
  const isEmpty = satellites.data?.length === 0;
  return (
    <main id="main">
      <div className="page-head">
        <h1>Satellites</h1>
        {!isEmpty && <div className="end">{addButton}</div>}
        <p>
          Relays for sessions, in addition to the server's own. They see only ciphertext, except for what they
          serve to browsers if you allow that.
        </p>
      </div>
      <List
        query={satellites}
        rows={satellites.data ?? []}
        keyOf={(satellite) => satellite.id}
        empty={
          <>
            <strong>No satellites yet</strong>
            <p>
              {manages
                ? 'A satellite near your developers or workspaces makes their sessions faster.'
                : 'An owner of this installation adds them.'}
            </p>
            {addButton}
          </>
        }
        columns={[
          {
            title: 'Name',
            is: 'name',
            cell: (satellite) => (
              <>
                <strong>{satellite.name}</strong>
                {satellite.url && (
                  <p className="hint">
                    {satellite.url}
                    <br />
                    {satellite.stun
                      ? `STUN at ${satellite.stun}`
                      : 'No STUN: no direct paths by UDP through NATs'}
                  </p>
                )}
                {satellite.web && <p className="hint">{webWords(satellite.web)}</p>}
              </>
            ),
          },
          { title: 'Region', cell: (satellite) => satellite.region },
          { title: 'Health', className: 'cell-words', cell: (satellite) => <Health satellite={satellite} /> },
          { title: 'Load', className: 'nowrap', cell: ({ load }) => load && <Load load={load} /> },
          { title: 'Version', className: 'nowrap', cell: (satellite) => satellite.version },
          {
            title: 'Last seen',
            className: 'muted nowrap',
            cell: ({ seenAt }) => (seenAt ? <Ago at={seenAt} /> : 'never'),
          },
          {
            title: 'Actions',
            is: 'actions',
            cell: (satellite) =>
              manages && (
                <Menu
                  label={`Actions for ${satellite.name}`}
                  items={[
                    satellite.draining
                      ? {
                          label: 'Let it serve again',
                          run: () => drain.mutate({ satellite, draining: false }),
                        }
                      : { label: 'Drain', run: () => drain.mutate({ satellite, draining: true }) },
                    { label: 'Browsers…', run: () => setChanging(satellite) },
                    { label: 'Remove…', danger: true, run: () => setRemoving(satellite) },
                  ]}
                >
                  <Icon name="more" />
                </Menu>
              ),
          },
        ]}
      />
      {adding && (
        <AddSatellite
          onClose={() => {
            setAdding(false);
            void refresh();
          }}
        />
      )}
      {changing && (
        <WebDialog
          satellite={changing}
          onClose={() => {
            setChanging(null);
            void refresh();
          }}
        />
      )}
      {removing && (
        <ConfirmDialog
          title={`Remove ${removing.name}`}
          keep="Keep it"
          confirm="Remove"
          act={async () => {
            await call(removeSatellite, { params: { satellite: removing.id } });
            await refresh();
            sayDone(`${removing.name} is removed.`);
          }}
          onClose={() => setRemoving(null)}
        >
          Its token is refused from now on; it sends its sessions elsewhere and its program ends.
        </ConfirmDialog>
      )}
    </main>
  );
}

function Health({ satellite }: { satellite: Satellite }) {
  const [tone, word, meaning] = looks[satellite.state];
  const { load } = satellite;
  return (
    <>
      <span className={`status ${tone}`}>{word}</span>
      <p className="hint">
        {satellite.state === 'online' && load
          ? `${bytes(load.memoryBytes)} of memory, answers within ${Math.ceil(load.loopDelayMs)} ms`
          : meaning}
      </p>
    </>
  );
}

const counted = (count: number, one: string) => `${count} ${one}${count === 1 ? '' : 's'}`;

function Load({ load }: { load: NonNullable<Satellite['load']> }) {
  return (
    <>
      {counted(load.sessions, 'session')}, {counted(load.agents, 'agent')}
      <p className="hint">{bytes(load.bytesPerSecond)}/s relayed</p>
    </>
  );
}
