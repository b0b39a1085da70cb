// Command kubernetes-schema writes what lateen-cluster knows about the built-in kinds of Kubernetes: the
// structure of every type that a served kind uses, and the OpenAPI definitions that `kubectl explain` shows.
//
//	go run . ../../crates/lateen-cluster/data
//
// Two sources are joined. The OpenAPI v3 documents inside the k8s.io/kubernetes module have descriptions, required
// fields and list types; the Go types of k8s.io/api have what the documents leave out and clients can see: the names
// of Go types in decoding errors, and the numbers of protobuf fields.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Version of k8s.io/kubernetes whose documents are read; its Go types are pinned in go.mod (v0.N for v1.N).
const kubernetes = "v1.36.3"

const reference = "#/components/schemas/"

type schema = map[string]any

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kubernetes-schema OUTPUT-FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes-schema:", err)
		os.Exit(1)
	}
}

func run(output string) error {
	documents, err := definitions()
	if err != nil {
		return err
	}
	generator := generator{documents: documents, structures: map[string]schema{}}
	for _, root := range roots() {
		generator.visit(reflect.TypeOf(root))
	}
	described := map[string]schema{}
	for name := range generator.structures {
		if definition, ok := documents[name]; ok {
			described[name] = definition
		}
	}
	if err := write(filepath.Join(output, "kubernetes-types.gz"), generator.structures); err != nil {
		return err
	}
	return write(filepath.Join(output, "kubernetes-openapi.gz"), described)
}

// definitions reads components.schemas of every OpenAPI document in the k8s.io/kubernetes module.
func definitions() (map[string]schema, error) {
	described, err := exec.Command("go", "mod", "download", "-json", "k8s.io/kubernetes@"+kubernetes).Output()
	if err != nil {
		return nil, fmt.Errorf("download k8s.io/kubernetes: %w", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(described, &module); err != nil {
		return nil, fmt.Errorf("read what go mod download says: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(module.Dir, "api/openapi-spec/v3/*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("find OpenAPI documents in %s: %w", module.Dir, err)
	}
	sort.Strings(files)
	found := map[string]schema{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var document struct {
			Components struct{ Schemas map[string]schema }
		}
		if err := json.Unmarshal(text, &document); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		for name, definition := range document.Components.Schemas {
			if _, ok := found[name]; !ok {
				found[name] = definition
			}
		}
	}
	return found, addEnumerations(module.Dir, found)
}

type generator struct {
	documents  map[string]schema
	structures map[string]schema
}

// visit adds the structure of a Go type and of all types below it.
func (g *generator) visit(goType reflect.Type) {
	switch goType.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		g.visit(goType.Elem())
		return
	case reflect.Struct:
	default:
		return
	}
	name := definitionName(goType)
	if _, seen := g.structures[name]; seen {
		return
	}
	structure := schema{}
	if definition, ok := g.documents[name]; ok {
		structure = withoutDescriptions(definition).(schema)
	}
	g.structures[name] = structure
	structure["x-go-type"] = goType.Name()
	if custom(goType) {
		return
	}
	structure["type"] = "object"
	properties, ok := structure["properties"].(schema)
	if !ok {
		properties = schema{}
	}
	g.fields(goType, properties, structure, true)
	if len(properties) > 0 {
		structure["properties"] = properties
	}
}

// fields annotates the properties that a Go struct contributes to an object, embedded structs included. The fields of
// an embedded struct have no protobuf numbers of the object's own: the struct is a message with a number.
func (g *generator) fields(goType reflect.Type, properties, structure schema, numbered bool) {
	for i := range goType.NumField() {
		field := goType.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		number := protobufNumber(field)
		if strings.Contains(options, "inline") || (name == "" && field.Anonymous) {
			g.visit(field.Type)
			embedded := field.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			g.fields(embedded, properties, schema{}, false)
			if number != 0 {
				inline, ok := structure["x-protobuf-inline"].(schema)
				if !ok {
					inline = schema{}
				}
				inline[strconv.Itoa(number)] = definitionName(embedded)
				structure["x-protobuf-inline"] = inline
			}
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		property, ok := properties[name].(schema)
		if !ok {
			property = g.property(field.Type)
			properties[name] = property
		}
		if number != 0 && numbered {
			property["x-protobuf"] = number
		}
		pointer := field.Type.Kind() == reflect.Pointer
		value := field.Type
		if pointer {
			value = value.Elem()
			property["x-pointer"] = true
		}
		property["x-go"] = value.String()
		// Fields that Go writes even when nobody gave them: omitempty means nothing for a struct.
		omitted := strings.Contains(options, "omitzero") || (strings.Contains(options, "omitempty") && value.Kind() != reflect.Struct)
		if !pointer && !omitted {
			property["x-always"] = true
		}
		if merge := field.Tag.Get("patchMergeKey"); merge != "" {
			property["x-kubernetes-patch-merge-key"] = merge
		}
		if strategy := field.Tag.Get("patchStrategy"); strategy != "" {
			property["x-kubernetes-patch-strategy"] = strategy
		}
		g.visit(field.Type)
	}
}

// property is the schema of a Go type that no document describes (types of legacy groups, embedded types).
func (g *generator) property(goType reflect.Type) schema {
	switch goType.Kind() {
	case reflect.Pointer:
		return g.property(goType.Elem())
	case reflect.Struct:
		return schema{"$ref": reference + definitionName(goType)}
	case reflect.Slice, reflect.Array:
		if goType.Elem().Kind() == reflect.Uint8 {
			return schema{"type": "string", "format": "byte"}
		}
		return schema{"type": "array", "items": g.property(goType.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": g.property(goType.Elem())}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int32, reflect.Uint32:
		return schema{"type": "integer", "format": "int32"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return schema{"type": "integer", "format": "int64"}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number", "format": "double"}
	default:
		return schema{"type": "string"}
	}
}

// custom tells whether a type has a JSON form of its own, so that its Go fields are not what clients write.
func custom(goType reflect.Type) bool {
	unmarshaler := reflect.TypeFor[json.Unmarshaler]()
	return goType.Implements(unmarshaler) || reflect.PointerTo(goType).Implements(unmarshaler)
}

var protobufTag = regexp.MustCompile(`^[a-z0-9]+,(\d+),`)

func protobufNumber(field reflect.StructField) int {
	match := protobufTag.FindStringSubmatch(field.Tag.Get("protobuf"))
	if match == nil {
		return 0
	}
	number, _ := strconv.Atoi(match[1])
	return number
}

// definitionName is how OpenAPI documents name a Go type.
func definitionName(goType reflect.Type) string {
	path := goType.PkgPath()
	domain, rest, _ := strings.Cut(path, "/")
	labels := strings.Split(domain, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + strings.ReplaceAll(rest, "/", ".") + "." + goType.Name()
}

func withoutDescriptions(value any) any {
	switch value := value.(type) {
	case schema:
		copied := schema{}
		for key, member := range value {
			// A property may itself be called description; only text is documentation. Values are checked by the rules of
			// the kinds, not by the types.
			_, text := member.(string)
			_, list := member.([]any)
			if key == "description" && text || key == "enum" && list {
				continue
			}
			copied[key] = withoutDescriptions(member)
		}
		return copied
	case []any:
		copied := make([]any, len(value))
		for i, member := range value {
			copied[i] = withoutDescriptions(member)
		}
		return copied
	default:
		return value
	}
}

// write stores one line per definition, `name TAB json`, sorted, as gzip. The same input gives the same bytes.
func write(path string, definitions map[string]schema) error {
	names := make([]string, 0, len(definitions))
	for name := range definitions {
		names = append(names, name)
	}
	sort.Strings(names)
	var compressed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return err
	}
	for _, name := range names {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(definitions[name]); err != nil {
			return err
		}
		fmt.Fprintf(writer, "%s\t%s", name, text.String())
	}
	if err := writer.Close(); err != nil {
		return err
	}
	fmt.Printf("%s: %d definitions, %d bytes\n", path, len(names), compressed.Len())
	return os.WriteFile(path, compressed.Bytes(), 0o644)
}
