// Nomad's Go client against a gateway: lists, reads, blocks, follows events, and survives a restart.
//
// It is told the gateway's program, serves a made fleet of which one plugin changes its health twice a second, and prints
// each claim that held. The first that does not ends it with exit code 1.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

const (
	flapping = "demo-0000"
	quiet    = "demo-0001"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: interop PATH-OF-CSI-GATEWAY")
		os.Exit(2)
	}
	err := run(os.Args[1])
	if err == nil {
		err = overTLS(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

func held(format string, arguments ...any) { fmt.Printf("ok: "+format+"\n", arguments...) }

// gateway serves the made fleet at an address; `:0` picks one.
type gateway struct {
	process *exec.Cmd
	address string
}

func start(program, address string) (*gateway, error) {
	process := exec.Command(program, "demo", "--hosts=3", "--plugins=3", "--flap=500ms", "--http-endpoint="+address)
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if address, found := strings.CutPrefix(lines.Text(), "listening on http://"); found {
			go func() {
				for lines.Scan() {
				}
			}()
			g := &gateway{process, address}
			return g, g.wait()
		}
	}
	return nil, fmt.Errorf("the gateway ended before it served")
}

// wait returns once the gateway is ready: until then it says that it does not know a leader.
func (g *gateway) wait() error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		answer, err := http.Get("http://" + g.address + "/readyz")
		if err != nil {
			continue
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("the gateway is not ready in time")
}

func (g *gateway) kill() {
	_ = g.process.Process.Kill()
	_ = g.process.Wait()
}

func run(program string) error {
	server, err := start(program, "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { server.kill() }()
	client, err := api.NewClient(&api.Config{Address: "http://" + server.address})
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		list, _, err := client.CSIPlugins().List(nil)
		if err == nil && len(list) == 3 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the fleet is not served: %v, %v", list, err)
		}
	}
	for _, check := range []func(*api.Client) error{listAndRead, errors, blockOnChange, sleepThroughOthers, search, events} {
		if err := check(client); err != nil {
			return err
		}
	}
	return restart(client, server, program)
}

func listAndRead(client *api.Client) error {
	list, meta, err := client.CSIPlugins().List(&api.QueryOptions{Prefix: "demo-000"})
	if err != nil {
		return err
	}
	if len(list) != 3 || meta.LastIndex == 0 || !meta.KnownLeader || meta.LastContact != 0 {
		return fmt.Errorf("list: %d plugins, %+v", len(list), meta)
	}
	held("List: %d plugins at index %d", len(list), meta.LastIndex)
	plugin, meta, err := client.CSIPlugins().Info(quiet, nil)
	if err != nil {
		return err
	}
	if plugin.ID != quiet || plugin.NodesHealthy != 3 || len(plugin.Nodes) != 3 || !meta.KnownLeader {
		return fmt.Errorf("read: %+v, %+v", plugin, meta)
	}
	for host, node := range plugin.Nodes {
		if node.NodeInfo == nil || node.PluginID != quiet || node.UpdateTime.IsZero() || len(host) < 8 {
			return fmt.Errorf("node %s: %+v", host, node)
		}
	}
	held("Info: %s, version %s", plugin.ID, plugin.Version)
	return nil
}

func errors(client *api.Client) error {
	_, _, err := client.CSIPlugins().Info("nobody", nil)
	if err == nil || err.Error() != "Unexpected response code: 404 (plugin not found)" {
		return fmt.Errorf("an unknown plugin: %v", err)
	}
	_, _, err = client.CSIPlugins().List(&api.QueryOptions{Region: "mars"})
	if err == nil || err.Error() != "Unexpected response code: 500 (No path to region)" {
		return fmt.Errorf("an unknown region: %v", err)
	}
	held("errors have Nomad's texts, compressed too")
	return nil
}

func blockOnChange(client *api.Client) error {
	var last uint64
	for round := 0; round < 5; round++ {
		begun := time.Now()
		_, meta, err := client.CSIPlugins().Info(flapping, &api.QueryOptions{WaitIndex: last, WaitTime: time.Minute})
		if err != nil {
			return err
		}
		if meta.LastIndex <= last || time.Since(begun) > 10*time.Second {
			return fmt.Errorf("round %d: index %d after %d, in %s", round, meta.LastIndex, last, time.Since(begun))
		}
		last = meta.LastIndex
	}
	held("a blocked reader wakes for its plugin's changes")
	return nil
}

func sleepThroughOthers(client *api.Client) error {
	const wait = 2 * time.Second
	for attempt := 0; attempt < 20; attempt++ {
		_, meta, err := client.CSIPlugins().Info(quiet, nil)
		if err != nil {
			return err
		}
		begun := time.Now()
		_, after, err := client.CSIPlugins().Info(quiet, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: wait})
		if err != nil {
			return err
		}
		if after.LastIndex < meta.LastIndex {
			return fmt.Errorf("the index fell from %d to %d", meta.LastIndex, after.LastIndex)
		}
		// A change between the two requests is answered at once, as Nomad does; the next attempt is luckier.
		if time.Since(begun) >= wait {
			held("and sleeps through those of others")
			return nil
		}
	}
	return fmt.Errorf("changes of another plugin wake readers of %s", quiet)
}

func search(client *api.Client) error {
	found, _, err := client.Search().PrefixSearch("demo-", "plugins", nil)
	if err != nil {
		return err
	}
	if len(found.Matches["plugins"]) != 3 {
		return fmt.Errorf("search: %+v", found)
	}
	leader, err := client.Status().Leader()
	if err != nil || leader == "" {
		return fmt.Errorf("leader: %q, %v", leader, err)
	}
	regions, err := client.Regions().List()
	if err != nil || len(regions) != 1 || regions[0] != "global" {
		return fmt.Errorf("regions: %v, %v", regions, err)
	}
	if _, _, err := client.Namespaces().List(nil); err != nil {
		return err
	}
	if _, _, err := client.ACLTokens().Self(nil); err != nil {
		return err
	}
	held("search, leader, regions, namespaces, token")
	return nil
}

func follow(client *api.Client, index uint64, count int) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	topics := map[api.Topic][]string{"CSIPlugin": {flapping}}
	stream, err := client.EventStream().Stream(ctx, topics, index, nil)
	if err != nil {
		return 0, err
	}
	var last uint64
	for count > 0 {
		lines, isOpen := <-stream
		if !isOpen {
			return 0, fmt.Errorf("the event stream ended")
		}
		if lines.Err != nil {
			return 0, lines.Err
		}
		if lines.IsHeartbeat() {
			continue
		}
		if lines.Index < index || lines.Index <= last {
			return 0, fmt.Errorf("event %d after %d, asked from %d", lines.Index, last, index)
		}
		for _, event := range lines.Events {
			plugin, _ := event.Payload["Plugin"].(map[string]any)
			if event.Topic != "CSIPlugin" || event.Key != flapping || plugin["ID"] != flapping {
				return 0, fmt.Errorf("event %+v", event)
			}
		}
		last = lines.Index
		count--
	}
	return last, nil
}

func events(client *api.Client) error {
	last, err := follow(client, 0, 3)
	if err != nil {
		return err
	}
	resumed, err := follow(client, last, 2)
	if err != nil {
		return err
	}
	held("events up to %d, resumed up to %d", last, resumed)
	return nil
}

func restart(client *api.Client, server *gateway, program string) error {
	_, meta, err := client.CSIPlugins().Info(flapping, nil)
	if err != nil {
		return err
	}
	before := meta.LastIndex
	server.kill()
	if _, _, err := client.CSIPlugins().List(nil); err == nil {
		return fmt.Errorf("a killed gateway answers")
	}
	again, err := start(program, server.address)
	if err != nil {
		return err
	}
	*server = *again
	deadline := time.Now().Add(30 * time.Second)
	for {
		plugin, meta, err := client.CSIPlugins().Info(flapping, &api.QueryOptions{WaitIndex: before, WaitTime: time.Second})
		if err == nil && meta.LastIndex < before {
			return fmt.Errorf("the index fell from %d to %d", before, meta.LastIndex)
		}
		if err == nil && plugin.ID == flapping && meta.LastIndex > before {
			held("a restart: index %d, then %d", before, meta.LastIndex)
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after the restart: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	response, err := http.Get("http://" + server.address + "/v1/plugins?type=csi")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("plain HTTP: %s", response.Status)
	}
	return nil
}
