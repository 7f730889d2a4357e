import { useInterrupt } from '@copilotkit/react-core/v2'

export function Question() {
  useInterrupt({
    render: ({ interrupts, resolve, cancel }) => (
      <>
        {interrupts.map(({ id, message, metadata }) => (
          <p key={id}>
            {message} <code>{JSON.stringify(metadata?.input)}</code>
            <button onClick={() => void resolve({ approved: true }, id)}>Approve</button>
            <button onClick={() => void cancel(id)}>Decline</button>
          </p>
        ))}
      </>
    ),
  })
  return null
}
