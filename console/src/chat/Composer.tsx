import { useState } from 'react'
import type { KeyboardEvent } from 'react'
import { useResource } from '../api'
import type { Assistant } from '../types'
import { Icon } from '../ui/parts'
import type { SendOptions } from './Thread'

const LONGEST = 32_000
const ID = 'message'
let fill: (text: string) => void = () => {}

/** Put a text into the composer, for the person to send. */
export function fillComposer(text: string): void {
  fill(text)
  document.getElementById(ID)?.focus()
}

export function Composer(props: {
  name: string
  isBusy: boolean
  canChoose: boolean
  onSend: (text: string, options: SendOptions) => void
  onStop: () => void
}) {
  const [text, setText] = useState('')
  const [options, setOptions] = useState<SendOptions>({})
  fill = setText
  const send = () => {
    if (!text.trim() || props.isBusy) return
    props.onSend(text, options)
    setText('')
    setOptions({ ...options, artifact_generation: false })
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault()
      send()
    }
  }
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      <label htmlFor={ID} className="visually-hidden">
        Message
      </label>
      <textarea
        id={ID}
        value={text}
        rows={1}
        maxLength={LONGEST}
        placeholder="Message the assistant"
        autoFocus
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      <div className="composer-foot">
        <Choices options={options} canChoose={props.canChoose} onChange={setOptions} />
        <span className="hint keys">Enter sends, Shift+Enter starts a line</span>
        {props.isBusy ? (
          <button type="button" className="stop" onClick={props.onStop}>
            Stop
          </button>
        ) : (
          <button type="submit" className="primary" disabled={!text.trim()}>
            Send <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  )
}

function Choices(props: { options: SendOptions; canChoose: boolean; onChange: (options: SendOptions) => void }) {
  const { options, onChange } = props
  const { data } = useResource<{ items: Assistant[] }>('assistants')
  const assistants = data?.items ?? []
  const chosen = assistants.find((each) => each.name === options.assistant) ?? assistants[0]
  return (
    <div className="choices">
      {props.canChoose && assistants.length > 1 && (
        <select
          aria-label="Assistant"
          value={chosen?.name}
          onChange={(event) => onChange({ artifact_generation: options.artifact_generation ?? false, assistant: event.target.value })}
        >
          {assistants.map((assistant) => (
            <option key={assistant.name} value={assistant.name}>
              {assistant.title}
            </option>
          ))}
        </select>
      )}
      {props.canChoose && chosen && chosen.models.length > 1 && (
        <select
          aria-label="Model"
          value={options.model ?? chosen.models[0]}
          onChange={(event) => onChange({ ...options, model: event.target.value })}
        >
          {chosen.models.map((model) => (
            <option key={model}>{model}</option>
          ))}
        </select>
      )}
      <label className="check">
        <input
          type="checkbox"
          checked={options.artifact_generation ?? false}
          onChange={(event) => onChange({ ...options, artifact_generation: event.target.checked })}
        />
        Write a document
      </label>
    </div>
  )
}
