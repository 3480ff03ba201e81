// Every message is an object of section names and their new content; the server draws, the page shows.
const link = document.getElementById("link");
const events = new EventSource("events");
events.onmessage = (message) => {
  for (const [name, html] of Object.entries(JSON.parse(message.data))) {
    const place = document.getElementById(name);
    if (place) place.innerHTML = html;
  }
  link.textContent = "live";
  link.className = "good";
};
events.onerror = () => {
  link.textContent = "the orchestrator does not answer; this is the last that it said";
  link.className = "bad";
};
