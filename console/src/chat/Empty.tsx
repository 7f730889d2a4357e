import { fillComposer } from './Composer'

const EXAMPLES = [
  '/add_task {"title": "Buy milk"}',
  '/list_tasks {}',
  'Which tools do you have?',
]

export function Empty() {
  return (
    <div className="empty">
      <p>
        Send a message. The assistant works through tools, and the ledger beside the conversation records each call: what was
        asked, what came back, and under which token.
      </p>
      <ul>
        {EXAMPLES.map((example) => (
          <li key={example}>
            <button type="button" className="example" onClick={() => fillComposer(example)}>
              {example}
            </button>
          </li>
        ))}
      </ul>
    </div>
  )
}
