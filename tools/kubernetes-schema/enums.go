package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// addEnumerations puts allowed values, and the descriptions that explain them, into the documents. The documents in the
// repository are made without them; what a server tells its clients comes from the generated Go code, which has them.
func addEnumerations(module string, documents map[string]schema) error {
	path := filepath.Join(module, "pkg/generated/openapi/zz_generated.openapi.go")
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	functions := map[string]*ast.FuncDecl{}
	for _, declaration := range file.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok {
			functions[function.Name.Name] = function
		}
	}
	for name, document := range documents {
		properties, ok := document["properties"].(schema)
		if !ok {
			continue
		}
		if function, ok := functions[functionName(name)]; ok {
			enumerate(function, properties)
		}
	}
	return nil
}

// functionName is what the generator of Kubernetes calls the function for a definition.
func functionName(definition string) string {
	name, found := strings.CutPrefix(definition, "io.k8s.apimachinery.")
	if !found {
		name = "k8sio." + strings.TrimPrefix(definition, "io.k8s.")
	}
	return "schema_" + strings.NewReplacer(".", "_", "-", "_").Replace(name)
}

// enumerate copies Enum and Description of every property in a schema function.
func enumerate(function *ast.FuncDecl, properties schema) {
	ast.Inspect(function, func(node ast.Node) bool {
		pair, ok := node.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok := pair.Key.(*ast.BasicLit)
		if !ok {
			return true
		}
		name, _ := strconv.Unquote(key.Value)
		property, known := properties[name].(schema)
		literal, composite := pair.Value.(*ast.CompositeLit)
		if !known || !composite {
			return true
		}
		if props := member(literal, "SchemaProps"); props != nil {
			values := member(props, "Enum")
			if values == nil {
				return true
			}
			allowed := []any{}
			for _, element := range values.Elts {
				if text, ok := element.(*ast.BasicLit); ok {
					if value, err := strconv.Unquote(text.Value); err == nil {
						allowed = append(allowed, value)
					}
				}
			}
			property["enum"] = allowed
			for _, element := range props.Elts {
				field, ok := element.(*ast.KeyValueExpr)
				if !ok || fmt.Sprint(field.Key) != "Description" {
					continue
				}
				if text, ok := field.Value.(*ast.BasicLit); ok {
					if description, err := strconv.Unquote(text.Value); err == nil {
						property["description"] = description
					}
				}
			}
		}
		return true
	})
}

// member is the composite value of a field in a composite literal.
func member(literal *ast.CompositeLit, name string) *ast.CompositeLit {
	for _, element := range literal.Elts {
		if field, ok := element.(*ast.KeyValueExpr); ok && fmt.Sprint(field.Key) == name {
			value, _ := field.Value.(*ast.CompositeLit)
			return value
		}
	}
	return nil
}
